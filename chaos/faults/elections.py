"""Faults that strike on a Sentinel's own events: an election that outlives the fault behind it.

The master's host is paused until the Sentinels have elected a leader and the leader has selected a
replica. The host then resumes, so that this fault is over, and at the same moment a second whole
host is hit: that of the selected replica. A schedule with fixed times does not find this: the
interval between selection and promotion lasts a few milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol, cast

from chaos.clusters import ClusterError, Kill, NodeKind, NotAvailableError, StoreNode
from chaos.clusters.resp import ReplyError, Subscription, as_info
from chaos.eventually import eventually
from chaos.faults.model import (
    FAILOVER_TIMEOUT_S,
    DidNotHappenError,
    Evidence,
    FaultContext,
    Strength,
)
from chaos.faults.partitions import PartitionFault, around
from chaos.faults.signals import PauseFault
from chaos.faults.targets import nodes, on_host

ATTEMPTS_MAX_COUNT = 8
"""Which Sentinel leads is a matter of milliseconds: an attempt succeeds about every second time."""
_SYNC_TIMEOUT_S = 90.0
_FAILOVER_TIMEOUT_S = 20.0
_POLL_S = 0.1
_SELECTED = "+selected-slave"


class _Second(Protocol):
    """The fault of the second host."""

    async def inject(self) -> Evidence: ...
    async def verify(self) -> Evidence: ...
    async def heal(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Selection:
    """A Sentinel has selected the replica that it is about to promote.

    Attributes:
        at_s: when its event arrived, in time.monotonic() seconds.
    """

    leader: StoreNode
    replica: StoreNode
    at_s: float

    @property
    def on_one_host(self) -> bool:
        """Whether the leading Sentinel and the selected replica stand and fall together."""
        return self.leader.host == self.replica.host


class PauseThenStrikeFault:
    """Pauses the master's host until a replica is selected, then hits the replica's host.

    Strength:
        second: ``isolate``: the second host is cut off from the other hosts and from clients, and
            the leading Sentinel is on it. ``pause``: the second host is stopped.
    """

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:
        self._context = context
        self._target = target
        self._isolates = str(strength.get("second", "isolate")) == "isolate"
        self._paused: StoreNode | None = None
        self._first: PauseFault | None = None
        self._second: _Second | None = None

    async def inject(self) -> Evidence:
        """Repeats until the second host was hit between the selection and the promotion."""
        for attempt in range(1, ATTEMPTS_MAX_COUNT + 1):
            evidence = await self._strike()
            if evidence is not None:
                return {**evidence, "attempt": attempt}
            await self._get_ready_again()
        raise DidNotHappenError(
            f"in {ATTEMPTS_MAX_COUNT} elections the leading Sentinel was never on the host of the "
            "replica that it selected"
        )

    async def _get_ready_again(self) -> None:
        """Waits for the failover, restarts the Sentinel that was paused, and waits until all agree.

        One whose clock jumped takes part in no election for 30 s (TILT), and the next one needs it.
        """
        cluster = self._context.cluster
        kill = cast("Kill", cluster)
        with contextlib.suppress(ClusterError):
            # It may have been given up.
            await cluster.wait_for_master(self._paused, _FAILOVER_TIMEOUT_S)
        assert self._paused is not None
        for node in on_host(cluster, self._paused.host):
            if node.kind is NodeKind.SENTINEL:
                await kill.kill(node)
                await kill.restart(node)
        await cluster.wait_until_in_sync(_SYNC_TIMEOUT_S)
        await eventually(
            self._all_may_elect, _SYNC_TIMEOUT_S, "not every Sentinel may elect", poll_s=_POLL_S
        )

    async def _all_may_elect(self) -> bool:
        """Whether every Sentinel acts, and names the same master."""
        cluster = self._context.cluster
        named: set[str] = set()
        for sentinel in (node for node in cluster.nodes if node.kind is NodeKind.SENTINEL):
            try:
                info = as_info(await cluster.command(sentinel, "INFO", "sentinel"))
            except (OSError, ReplyError):
                return False
            # master0:name=mymaster,status=ok,address=IP:PORT,slaves=2,sentinels=3
            fields = dict(field.split("=", 1) for field in info["master0"].split(","))
            if info["sentinel_tilt"] != "0" or fields["status"] != "ok":
                return False
            named.add(fields["address"])
        return len(named) == 1

    async def _strike(self) -> Evidence | None:
        """One election; None if it is not the case that is looked for."""
        master, *_ = await nodes(self._context.cluster, self._target)
        self._paused = master
        async with _selections(self._context) as selections:
            self._first = PauseFault(self._context, self._target, {})
            since_s = time.monotonic()
            await self._first.inject()
            try:
                async with asyncio.timeout(FAILOVER_TIMEOUT_S):
                    selection = await selections.get()
            except TimeoutError:
                raise DidNotHappenError("no Sentinel selected a replica") from None
            finally:
                await self._heal_first()
            paused_ms = round((time.monotonic() - since_s) * 1_000)
            if self._isolates and not selection.on_one_host:
                return None
            host = selection.replica.host
            self._second = (
                PartitionFault(self._context, host, {"clients": "outside"}, shape=around)
                if self._isolates
                else PauseFault(self._context, host, {})
            )
            after_ms = round((time.monotonic() - selection.at_s) * 1_000)
            await self._second.inject()
        return {
            "paused": master.host,
            "paused_ms": paused_ms,
            "leader": selection.leader.name,
            "selected": selection.replica.name,
            "second": host,
            "after_selection_ms": after_ms,
        }

    async def verify(self) -> Evidence:
        """The second fault happened."""
        assert self._second is not None
        return await self._second.verify()

    async def heal(self) -> None:
        """Undoes both."""
        await self._heal_first()
        second, self._second = self._second, None
        if second is not None:
            await second.heal()

    async def _heal_first(self) -> None:
        first, self._first = self._first, None
        if first is not None:
            await first.heal()


@contextlib.asynccontextmanager
async def _selections(context: FaultContext) -> AsyncIterator[asyncio.Queue[_Selection]]:
    """What the Sentinels publish about selected replicas while the block runs."""
    sentinels = [node for node in context.cluster.nodes if node.kind is NodeKind.SENTINEL]
    if not sentinels:
        raise NotAvailableError("sentinel: this cluster has none")
    queue: asyncio.Queue[_Selection] = asyncio.Queue()

    async def listen(sentinel: StoreNode, subscription: Subscription) -> None:
        # The Sentinel of the paused host says nothing, and its connection may break.
        with contextlib.suppress(OSError):
            while True:
                _, message = await subscription.next()
                replica = _named(context, message)
                queue.put_nowait(_Selection(sentinel, replica, time.monotonic()))

    # Each one is subscribed to before the pause: the selection comes a down-after later.
    subscriptions = {each: await context.cluster.subscribe(each, _SELECTED) for each in sentinels}
    tasks = [
        asyncio.create_task(listen(sentinel, each), name=f"chaos events of {sentinel.name}")
        for sentinel, each in subscriptions.items()
    ]
    try:
        yield queue
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in subscriptions.values():
            each.close()


def _named(context: FaultContext, message: str) -> StoreNode:
    """The node of an event: ``slave IP:PORT IP PORT @ MASTER IP PORT``."""
    address = message.split()[1]
    for node in context.cluster.nodes:
        if node.address == address:
            return node
    raise ClusterError(f"a Sentinel selected {address}, which is not of this cluster")
