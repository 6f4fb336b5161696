"""Finds the targets of a fault at the moment of its injection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from chaos.clusters import (
    Clock,
    Cluster,
    ClusterError,
    Kill,
    NodeKind,
    NotAvailableError,
    Pause,
    StoreNode,
)
from chaos.faults.model import FAILOVER_TIMEOUT_S, FaultContext, Target


@dataclass(frozen=True, slots=True)
class NodeTarget:
    """A node of the store as a target; ``Clocked`` as well."""

    cluster: Cluster
    node: StoreNode

    @property
    def name(self) -> str:
        return self.node.name

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        await cast("Kill", self.cluster).kill(self.node)

    async def restart(self) -> None:
        """Starts it again; a data node through ``ddq node``."""
        await cast("Kill", self.cluster).restart(self.node)

    async def pause(self) -> None:
        """SIGSTOP; returns when the kernel has stopped it."""
        await cast("Pause", self.cluster).pause(self.node)

    async def resume(self) -> None:
        """SIGCONT."""
        await cast("Pause", self.cluster).resume(self.node)

    def alive(self) -> bool:
        """Whether its process exists."""
        return cast("Kill", self.cluster).alive(self.node)

    def paused(self) -> bool:
        """Whether the kernel says that it is stopped."""
        return cast("Pause", self.cluster).paused(self.node)

    async def shift_clock(self, offset_ms: int) -> None:
        """Sets its clock so far from the true one."""
        await cast("Clock", self.cluster).shift_clock(self.node, offset_ms)

    async def clock_offset_ms(self) -> int:
        """How far its clock is from the true one, as it says itself."""
        return await cast("Clock", self.cluster).clock_offset_ms(self.node)


async def find_targets(context: FaultContext, target: str) -> list[Target]:
    """The processes that a target stands for.

    Raises:
        NotAvailableError: this run has none of that kind.
    """
    if target in context.processes:
        return [await context.processes[target]()]
    return [NodeTarget(context.cluster, node) for node in await nodes(context.cluster, target)]


async def nodes(cluster: Cluster, target: str) -> list[StoreNode]:
    """The nodes that a target stands for.

    Args:
        target: master, replica, sentinel; each of them with ``-host`` for all that stands and falls
            with it; sentinels for all of those; all-hosts for every node; or the name of a node
            or host.

    Raises:
        NotAvailableError: this cluster has none of that kind.
    """
    if target.endswith("-host"):
        (chosen,) = await nodes(cluster, target.removesuffix("-host"))
        return on_host(cluster, chosen.host)
    match target:
        case "all-hosts":
            return list(cluster.nodes)
        case "master":
            return [await _master(cluster)]
        case "replica":
            return [(await replicas(cluster))[0]]
        case "sentinel":
            return [await _sentinel(cluster)]
        case "sentinels":
            return _sentinels(cluster)
        case _:
            named = [node for node in cluster.nodes if target in {node.name, node.host}]
            if not named:
                raise NotAvailableError(f"{target}: this run has no such node or process")
            return named


async def _master(cluster: Cluster) -> StoreNode:
    """Waits for one: the fault before may not be repaired yet."""
    return await cluster.wait_for_master(None, FAILOVER_TIMEOUT_S)


async def replicas(cluster: Cluster) -> list[StoreNode]:
    """Those of the present master."""
    master = await _master(cluster)
    found = [node for node in cluster.group(master) if node != master]
    if not found:
        raise NotAvailableError("replica: this cluster has none")
    return found


def _sentinels(cluster: Cluster) -> list[StoreNode]:
    sentinels = [node for node in cluster.nodes if node.kind is NodeKind.SENTINEL]
    if not sentinels:
        raise NotAvailableError("sentinel: this cluster has none")
    return sentinels


async def _sentinel(cluster: Cluster) -> StoreNode:
    """One that is not on the master's host, else it is that host's fault."""
    sentinels = _sentinels(cluster)
    master = await _master(cluster)
    return next((node for node in sentinels if node.host != master.host), sentinels[0])


def on_host(cluster: Cluster, host: str) -> list[StoreNode]:
    """Every node of a host."""
    return [node for node in cluster.nodes if node.host == host]


def one(found: Sequence[StoreNode], target: str) -> StoreNode:
    """The single node that some faults need."""
    if len(found) != 1:
        raise ClusterError(f"{target} is {len(found)} nodes; this fault takes one")
    return found[0]
