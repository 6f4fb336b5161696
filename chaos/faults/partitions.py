"""Networks that are cut, between whole hosts or through one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol, cast

from chaos.clusters import Cut, NodeKind, Partition, StoreNode
from chaos.faults.model import DidNotHappenError, Evidence, FaultContext, Strength
from chaos.faults.targets import nodes, on_host, replicas


class Shape(Protocol):
    """Which packets a partition drops."""

    async def __call__(
        self, context: FaultContext, target: str, strength: Strength
    ) -> list[Cut]: ...


class PartitionFault:
    """Drops packets between addresses, until healed.

    Strength:
        share: of the packets that are dropped, each by chance; all of them if it is not given.
    """

    def __init__(
        self, context: FaultContext, target: str, strength: Strength, *, shape: Shape
    ) -> None:
        self._context = context
        self._target = target
        self._strength = strength
        self._shape = shape
        self._name: str | None = None

    @property
    def _cluster(self) -> Partition:
        return cast("Partition", self._context.cluster)

    async def inject(self) -> Evidence:
        """Cuts, all of it at the same moment."""
        share = float(self._strength.get("share", 1.0))
        cuts = [
            replace(cut, share=share)
            for cut in await self._shape(self._context, self._target, self._strength)
        ]
        self._name = await self._cluster.cut(cuts)
        by_ip = {node.ip: node.name for node in self._context.cluster.nodes}
        named = [
            f"{by_ip.get(cut.source_ip, cut.source_ip)}>{by_ip.get(cut.target_ip, cut.target_ip)}"
            for cut in cuts
        ]
        return {"cut": named}

    async def verify(self) -> Evidence:
        """Packets were dropped."""
        assert self._name is not None
        packets = await self._cluster.dropped_packets(self._name)
        if packets == 0:
            raise DidNotHappenError(f"the partition of {self._target} has dropped no packet")
        return {"dropped_packets": packets}

    async def heal(self) -> None:
        """Lets packets through."""
        if self._name is not None:
            await self._cluster.heal(self._name)
            self._name = None


def partition(shape: Shape) -> Callable[[FaultContext, str, Strength], PartitionFault]:
    """Makes faults of one shape."""

    def make(context: FaultContext, target: str, strength: Strength) -> PartitionFault:
        return PartitionFault(context, target, strength, shape=shape)

    return make


async def around(context: FaultContext, target: str, strength: Strength) -> list[Cut]:
    """The target's nodes against all the rest of the store.

    Strength:
        direction: both, in (nothing reaches the target) or out (nothing leaves it).
        clients: what they reach. ``both`` sides is the default and the dangerous one: clients of
            the old master stay connected to it. ``inside`` and ``outside`` leave them one side.
    """
    inside = await nodes(context.cluster, target)
    return _cuts(context, inside, strength)


async def through(context: FaultContext, target: str, strength: Strength) -> list[Cut]:
    """The master's data node and one replica's, without their Sentinels, against all the rest.

    Strength:
        sentinels: how many of their two Sentinels are on their side.
        clients: see ``around``.
    """
    (master,) = await nodes(context.cluster, target)
    inside = [master, (await replicas(context.cluster))[0]]
    beside = [
        node
        for member in inside
        for node in on_host(context.cluster, member.host)
        if node.kind is NodeKind.SENTINEL
    ]
    return _cuts(context, [*inside, *beside[: int(strength.get("sentinels", 0))]], strength)


async def ring(context: FaultContext, target: str, strength: Strength) -> list[Cut]:  # noqa: ARG001
    """Two hosts lose each other, and each of them keeps the third: every host sees a majority."""
    (master,) = await nodes(context.cluster, target)
    other = (await replicas(context.cluster))[0]
    ours, theirs = on_host(context.cluster, master.host), on_host(context.cluster, other.host)
    return [*_between(_ips(ours), _ips(theirs)), *_between(_ips(theirs), _ips(ours))]


async def clients(context: FaultContext, target: str, strength: Strength) -> list[Cut]:
    """Clients lose the target's nodes, and those notice nothing.

    Strength:
        direction: see ``around``, as seen from the target.
    """
    return _directed(_ips(await nodes(context.cluster, target)), context.client_ips, strength)


def _cuts(context: FaultContext, inside: list[StoreNode], strength: Strength) -> list[Cut]:
    outside = [node for node in context.cluster.nodes if node not in inside]
    cuts = _directed(_ips(inside), _ips(outside), strength)
    match strength.get("clients", "both"):
        case "inside":
            cuts += _directed(_ips(outside), context.client_ips, {})
        case "outside":
            cuts += _directed(_ips(inside), context.client_ips, {})
    return cuts


def _directed(inside: Iterable[str], outside: Iterable[str], strength: Strength) -> list[Cut]:
    ours, theirs = list(inside), list(outside)
    match strength.get("direction", "both"):
        case "in":
            return _between(theirs, ours)
        case "out":
            return _between(ours, theirs)
        case _:
            return [*_between(ours, theirs), *_between(theirs, ours)]


def _between(sources: Iterable[str], targets: Iterable[str]) -> list[Cut]:
    reached = list(targets)
    return [Cut(source, target) for source in sources for target in reached]


def _ips(members: Iterable[StoreNode]) -> list[str]:
    return [node.ip for node in members]
