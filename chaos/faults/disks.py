"""Disks that lose what they held, take no more, or take long."""

from __future__ import annotations

import contextlib
from typing import cast

from chaos.clusters import Cluster, Disk, FullDisk, Kill, NodeKind, Role, StoreNode
from chaos.clusters.resp import as_info
from chaos.eventually import eventually
from chaos.faults.model import (
    FAILOVER_TIMEOUT_S,
    DidNotHappenError,
    Evidence,
    FaultContext,
    Strength,
)
from chaos.faults.signals import KillFault
from chaos.faults.targets import NodeTarget, nodes, one

_POLL_S = 0.05
_SLOW_TIMEOUT_S = 10.0
# Rounds of the event loop in which nothing was written take no time, and count.
_FELT_SHARE = 0.1
# Longer than any command, so that at least one of them has no beginning.
_SPOILT_BYTES = 16_384
_REWRITE_DELAY_US = 100_000


async def _data_node(cluster: Cluster, target: str) -> StoreNode:
    """The one with a disk, of a host too."""
    found = await nodes(cluster, target)
    return one([node for node in found if node.kind is NodeKind.DATA], target)


class ReturnFault:
    """A data node dies and is back at once, without its data or the end of it: a power loss.

    Strength:
        tail_bytes: how much of the append-only file is gone; 0 for the whole disk.
        guarded: whether it is started through ``ddq node``. No mode promises to bear False.
    """

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:
        self._cluster = context.cluster
        self._target = target
        self._tail_bytes = int(strength.get("tail_bytes", 0))
        self._guarded = bool(strength.get("guarded", True))
        self._node: StoreNode | None = None
        self._was_master = False
        self._gone_bytes = 0

    async def inject(self) -> Evidence:
        """Kills it, damages its disk, starts it."""
        self._node = await _data_node(self._cluster, self._target)
        self._was_master = self._node == await self._cluster.master()
        disk, kill = cast("Disk", self._cluster), cast("Kill", self._cluster)
        await kill.kill(self._node)
        try:
            if self._tail_bytes:
                self._gone_bytes = await disk.truncate_log(self._node, self._tail_bytes)
            else:
                await disk.empty_disk(self._node)
        finally:
            await kill.restart(self._node, guarded=self._guarded)
        return {"node": self._node.name, "gone_bytes": self._gone_bytes}

    async def verify(self) -> Evidence:
        """Something went, and a guarded master has given way."""
        assert self._node is not None
        if self._tail_bytes and not self._gone_bytes:
            raise DidNotHappenError(f"{self._node.name} had nothing to lose")
        if not (self._was_master and self._guarded):
            return {}
        new = await self._cluster.wait_for_master(self._node, FAILOVER_TIMEOUT_S)
        return {"old_master": self._node.name, "new_master": new.name}

    async def heal(self) -> None:
        """Nothing to undo: it has been started."""


class SpoiltLogFault:
    """A data node dies, and zeros stand in the middle of its append-only file when it is back.

    The server refuses to start from it, and the operator gives the node an empty disk.
    """

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:  # noqa: ARG002
        self._cluster = context.cluster
        self._target = target
        self._node: StoreNode | None = None

    @property
    def _kill(self) -> Kill:
        return cast("Kill", self._cluster)

    async def inject(self) -> Evidence:
        """Kills it, damages the file, starts it."""
        self._node = await _data_node(self._cluster, self._target)
        await self._kill.kill(self._node)
        spoilt_bytes = await cast("Disk", self._cluster).spoil_log(self._node, _SPOILT_BYTES)
        await self._kill.restart(self._node)
        return {"node": self._node.name, "spoilt_bytes": spoilt_bytes}

    async def verify(self) -> Evidence:
        """The server has read the file, and has ended."""
        node = self._node
        assert node is not None
        try:
            await eventually(lambda: not self._kill.alive(node), FAILOVER_TIMEOUT_S)
        except TimeoutError:
            raise DidNotHappenError(
                f"{node.name} did not end over its append-only file within {FAILOVER_TIMEOUT_S:g} s"
            ) from None
        return {}

    async def heal(self) -> None:
        """Empties its disk and starts it; it takes everything from its master."""
        node, self._node = self._node, None
        if node is None:
            return
        await self._kill.kill(node)
        await cast("Disk", self._cluster).empty_disk(node)
        await self._kill.restart(node)


class KillInRewriteFault(KillFault):
    """A data node dies while it rewrites its append-only file."""

    async def inject(self) -> Evidence:
        """Begins a rewrite that takes long, and kills the node in it."""
        cluster = self._context.cluster
        node = await _data_node(cluster, self._target)
        # Between two keys; the setting goes with the process.
        await cluster.command(node, "CONFIG", "SET", "rdb-key-save-delay", str(_REWRITE_DELAY_US))
        await cluster.command(node, "BGREWRITEAOF")

        async def rewrites() -> bool:
            info = as_info(await cluster.command(node, "INFO", "persistence"))
            return info["aof_rewrite_in_progress"] == "1"

        try:
            await eventually(rewrites, _SLOW_TIMEOUT_S, poll_s=_POLL_S)
        except TimeoutError:
            await cluster.command(node, "CONFIG", "SET", "rdb-key-save-delay", "0")
            raise DidNotHappenError(f"{node.name} did not begin to rewrite its log") from None
        target = NodeTarget(cluster, node)
        self._targets = [target]
        await target.kill()
        return {"node": node.name}


class FullDiskFault:
    """A data node has no room for its append-only file: a master refuses writes, a replica ends."""

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:  # noqa: ARG002
        self._context = context
        self._target = target
        self._node: StoreNode | None = None

    @property
    def _disk(self) -> FullDisk:
        return cast("FullDisk", self._context.cluster)

    async def inject(self) -> Evidence:
        """Fills it."""
        self._node = await _data_node(self._context.cluster, self._target)
        await self._disk.fill_disk(self._node)
        return {"node": self._node.name}

    async def verify(self) -> Evidence:
        """It is still full."""
        assert self._node is not None
        free_bytes = await self._disk.free_disk_bytes(self._node)
        if free_bytes:
            raise DidNotHappenError(f"{self._node.name} has {free_bytes} bytes of room again")
        return {}

    async def heal(self) -> None:
        """Gives the room back, and starts a node that has ended, as its supervisor would."""
        node, self._node = self._node, None
        if node is None:
            return
        await self._disk.free_disk(node)
        kill = cast("Kill", self._context.cluster)

        # A replica cannot refuse what its master has done, and ends over it, with a long report
        # (replica-ignore-disk-write-errors).
        async def ended_or_answers() -> bool:
            role = await self._context.cluster.role(node)
            return role is not Role.UNREACHABLE or not kill.alive(node)

        await eventually(ended_or_answers, None, poll_s=_POLL_S)
        if not kill.alive(node):
            await kill.restart(node)


class SlowDiskFault:
    """Each write to a data node's append-only file takes long, and all clients wait meanwhile.

    Strength:
        sleep_ms: how long.
    """

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:
        self._cluster = context.cluster
        self._target = target
        self._sleep_ms = int(strength.get("sleep_ms", 100))
        self._node: StoreNode | None = None

    async def inject(self) -> Evidence:
        """DEBUG AOF-FLUSH-SLEEP."""
        self._node = await _data_node(self._cluster, self._target)
        await self._set(self._node, self._sleep_ms)
        return {"node": self._node.name, "sleep_ms": self._sleep_ms}

    async def _set(self, node: StoreNode, sleep_ms: int) -> None:
        await self._cluster.command(node, "DEBUG", "AOF-FLUSH-SLEEP", str(sleep_ms * 1_000))

    async def verify(self) -> Evidence:
        """Its event loop takes long; DidNotHappenError where nothing is written to it."""
        assert self._node is not None
        node, took_us = self._node, 0

        async def slow() -> bool:
            nonlocal took_us
            info = as_info(await self._cluster.command(node, "INFO", "stats"))
            took_us = int(info["instantaneous_eventloop_duration_usec"])
            return took_us >= self._sleep_ms * 1_000 * _FELT_SHARE

        try:
            await eventually(slow, _SLOW_TIMEOUT_S, poll_s=_POLL_S)
        except TimeoutError:
            raise DidNotHappenError(
                f"a round of {node.name}'s event loop takes {took_us} us, as if its disk "
                "were as fast as ever"
            ) from None
        return {"eventloop_us": took_us}

    async def heal(self) -> None:
        """As fast as before."""
        node, self._node = self._node, None
        if node is not None:
            # One that is down comes back with a disk that is well.
            with contextlib.suppress(OSError):
                await self._set(node, 0)
