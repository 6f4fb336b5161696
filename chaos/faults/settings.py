"""Replicas that are not alike, or not configured."""

from __future__ import annotations

import contextlib
from typing import cast

from chaos.clusters import Role, StoreNode, Unconfigured
from chaos.clusters.resp import as_pairs
from chaos.faults.model import DidNotHappenError, Evidence, FaultContext, Strength
from chaos.faults.targets import nodes, one

_DEFAULT_PRIORITY = 100


class PriorityFault:
    """Sentinel prefers one replica, whatever that one has received.

    Strength:
        priority: lower is preferred; 0 is never promoted, and still answers WAIT.
    """

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:
        self._cluster = context.cluster
        self._target = target
        self._priority = int(strength.get("priority", 1))
        self._node: StoreNode | None = None

    async def inject(self) -> Evidence:
        """CONFIG SET replica-priority."""
        self._node = one(await nodes(self._cluster, self._target), self._target)
        await self._set(self._node, self._priority)
        return {"node": self._node.name, "priority": self._priority}

    async def _set(self, node: StoreNode, priority: int) -> None:
        await self._cluster.command(node, "CONFIG", "SET", "replica-priority", str(priority))

    async def verify(self) -> Evidence:
        """It says so itself."""
        assert self._node is not None
        reply = await self._cluster.command(self._node, "CONFIG", "GET", "replica-priority")
        if as_pairs(reply).get("replica-priority") != str(self._priority):
            raise DidNotHappenError(f"{self._node.name} answers {reply!r}")
        return {}

    async def heal(self) -> None:
        """As all others."""
        node, self._node = self._node, None
        if node is not None:
            # One that is down comes back with the priority of its file.
            with contextlib.suppress(OSError):
                await self._set(node, _DEFAULT_PRIORITY)


class UnconfiguredReplicaFault:
    """A replica that is not a configured data node attaches itself, and answers WAIT too."""

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:  # noqa: ARG002
        self._cluster = context.cluster
        self._node: StoreNode | None = None

    @property
    def _unconfigured(self) -> Unconfigured:
        return cast("Unconfigured", self._cluster)

    async def inject(self) -> Evidence:
        """Starts it and waits until it is in sync."""
        self._node = await self._unconfigured.attach_unconfigured()
        return {"node": self._node.name}

    async def verify(self) -> Evidence:
        """It follows a master still: it was in sync, and a failover in between takes it along."""
        assert self._node is not None
        if await self._cluster.role(self._node) is not Role.REPLICA:
            raise DidNotHappenError(f"{self._node.name} is no longer a replica")
        return {}

    async def heal(self) -> None:
        """Ends it."""
        if self._node is not None:
            await self._unconfigured.detach_unconfigured(self._node)
            self._node = None
