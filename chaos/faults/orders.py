"""Actions that are allowed, at a moment when they do damage."""

from __future__ import annotations

import hashlib
from typing import cast

from chaos.clusters import ClusterError, Kill, NodeKind, NotAvailableError, StoreNode
from chaos.clusters.resp import as_list
from chaos.eventually import eventually
from chaos.faults.model import (
    FAILOVER_TIMEOUT_S,
    DidNotHappenError,
    Evidence,
    FaultContext,
    Strength,
)
from chaos.faults.targets import nodes, one

_POLL_S = 0.02


class FailoverFault:
    """Moves the master though nothing is wrong with it.

    Strength:
        coordinated: whether it pauses writes and waits for the replica; without, writes are lost.
    """

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:  # noqa: ARG002
        self._cluster = context.cluster
        self._coordinated = bool(strength.get("coordinated", True))
        self._old: StoreNode | None = None
        self._new: StoreNode | None = None

    async def inject(self) -> Evidence:
        """SENTINEL FAILOVER, or CLUSTER FAILOVER."""
        self._old = await self._cluster.master()
        self._new = await self._cluster.failover(coordinated=self._coordinated)
        return {"old_master": self._old.name, "new_master": self._new.name}

    async def verify(self) -> Evidence:
        """Another one is master."""
        if self._new is None or self._new == self._old:
            raise DidNotHappenError("the master is where it was")
        return {}

    async def heal(self) -> None:
        """Nothing to undo."""


class SentinelCrashFault:
    """The master is killed, and the Sentinel that leads its failover dies in the middle of it.

    Strength:
        moment: crash-after-election or crash-after-promotion.
    """

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:  # noqa: ARG002
        self._cluster = context.cluster
        self._moment = str(strength.get("moment", "crash-after-election"))
        self._down: list[StoreNode] = []
        self._master: StoreNode | None = None
        self._armed: list[StoreNode] = []

    @property
    def _kill(self) -> Kill:
        return cast("Kill", self._cluster)

    async def inject(self) -> Evidence:
        """Arms every Sentinel, kills the master, disarms the others once one has died."""
        self._armed = [n for n in self._cluster.nodes if n.kind is NodeKind.SENTINEL]
        if not self._armed:
            raise NotAvailableError("sentinel: this cluster has none")
        self._master = await self._cluster.master()
        for sentinel in self._armed:
            await self._cluster.command(sentinel, "SENTINEL", "SIMULATE-FAILURE", self._moment)
        self._down.append(self._master)
        await self._kill.kill(self._master)
        crashed = await self._first_crash()
        # Else the next leader dies as well, and no Sentinel is left for an election.
        await self._disarm()
        return {"killed": [self._master.name, crashed.name], "moment": self._moment}

    async def _first_crash(self) -> StoreNode:
        def crashed() -> StoreNode | None:
            return next((one for one in self._armed if not self._kill.alive(one)), None)

        problem = "no Sentinel died while it led the failover"
        sentinel = await eventually(
            crashed, FAILOVER_TIMEOUT_S, problem, error=DidNotHappenError, poll_s=_POLL_S
        )
        self._down.append(sentinel)
        return sentinel

    async def _disarm(self) -> None:
        while self._armed:
            sentinel = self._armed.pop()
            if self._kill.alive(sentinel):
                # SIMULATE-FAILURE has no argument that disarms it, but each call, HELP too, first
                # clears the failures that earlier calls have armed.
                await self._cluster.command(sentinel, "SENTINEL", "SIMULATE-FAILURE", "HELP")

    async def verify(self) -> Evidence:
        """The others have elected a master all the same."""
        new = await self._cluster.wait_for_master(self._master, FAILOVER_TIMEOUT_S)
        return {"new_master": new.name}

    async def heal(self) -> None:
        """Starts both again."""
        await self._disarm()
        while self._down:
            node = self._down.pop()
            if not self._kill.alive(node):
                await self._kill.restart(node)


class ScriptFlushFault:
    """The node forgets every script, as at a failover."""

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:  # noqa: ARG002
        self._cluster = context.cluster
        self._target = target
        self._before = False
        self._node: StoreNode | None = None

    async def inject(self) -> Evidence:
        """SCRIPT FLUSH."""
        self._node = one(await nodes(self._cluster, self._target), self._target)
        await self._cluster.command(self._node, "SCRIPT", "LOAD", _PROBE)
        self._before = await self._knows_probe(self._node)
        await self._cluster.command(self._node, "SCRIPT", "FLUSH", "SYNC")
        return {"flushed": self._node.name}

    async def verify(self) -> Evidence:
        """A script that it knew before is not known any more."""
        assert self._node is not None
        if not self._before or await self._knows_probe(self._node):
            raise DidNotHappenError(f"{self._node.name} has not forgotten its scripts")
        return {}

    async def _knows_probe(self, node: StoreNode) -> bool:
        digest = hashlib.sha1(_PROBE.encode(), usedforsecurity=False).hexdigest()
        return as_list(await self._cluster.command(node, "SCRIPT", "EXISTS", digest)) == [1]

    async def heal(self) -> None:
        """Nothing to undo."""


_PROBE = "return 'ddq-chaos'"


class ClientKillFault:
    """Every client's connection to the node is closed."""

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:  # noqa: ARG002
        self._cluster = context.cluster
        self._target = target
        self._count = 0

    async def inject(self) -> Evidence:
        """CLIENT KILL."""
        node = one(await nodes(self._cluster, self._target), self._target)
        count = 0
        for kind in ("normal", "pubsub"):
            killed = await self._cluster.command(node, "CLIENT", "KILL", "TYPE", kind)
            if not isinstance(killed, int):
                raise ClusterError(f"{node.name} answers CLIENT KILL with {killed!r}")
            count += killed
        self._count = count
        return {"node": node.name, "connections": count}

    async def verify(self) -> Evidence:
        """There was a connection to close."""
        if not self._count:
            raise DidNotHappenError("no client was connected")
        return {}

    async def heal(self) -> None:
        """Nothing to undo."""
