"""How long a failover is felt: from the new master to the first answer of each operation.

For each durability and each kind of operation one client asks all the time, so that what is
measured is ddq and not how often it was asked. Its requests have half a second each and are
repeatable: the same lease is acked again, and gets its verdict again. They are
not part of the history; the traffic beside them is, and is judged.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from rich.table import Table

from chaos.checker.availability import UNSERVED
from chaos.experiments.maintenance.procedure import Procedure
from chaos.experiments.recorded import RecordedSession
from chaos.experiments.topics import create_topic
from chaos.faults import Mode
from ddq.client import Client, Lease
from ddq.errors import DdqError

DOWN_S = 5.0
_PAUSE_S = 0.05
_TIMEOUT_S = 0.5
_SETUP_TIMEOUT_S = 30.0
_REST_S = 3.0
_FAR = timedelta(hours=12)
_LONG = timedelta(hours=6)

Ask = Callable[[float], Awaitable[object]]


@dataclass(eq=False, slots=True)
class Prober:
    """One kind of operation at one durability, asked for all the time.

    Attributes:
        first_s: monotonic time of the first answer since ``listen``; None: not yet.
        answered: set when there is one.
    """

    mode: Mode
    kind: str
    ask: Ask
    first_s: float | None = None
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    def listen(self) -> None:
        """From now on the first answer counts."""
        self.first_s = None
        self.answered.clear()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await self.ask(_TIMEOUT_S)
            except DdqError as error:
                served = error.reason not in UNSERVED
            else:
                served = True
            if served and self.first_s is None:
                self.first_s = time.monotonic()
                self.answered.set()
            await asyncio.sleep(_PAUSE_S)


def topics_of(mode: Mode) -> tuple[str, str]:
    """One with tasks, and one that stays empty."""
    return f"probe-{mode.value}", f"probe-{mode.value}-empty"


async def probers(client: Client, mode: Mode) -> list[Prober]:
    """One of each kind, on a topic of their own."""
    topic, empty = topics_of(mode)
    for name in (topic, empty):
        await create_topic(client, name, mode, timeout_s=_SETUP_TIMEOUT_S)
    leases: list[Lease] = []
    for kind in ("ack", "nack", "extend", "release"):
        await client.enqueue(topic, task_id=kind, timeout_s=_SETUP_TIMEOUT_S)
    while len(leases) < 4:
        leases += await client.retrieve(
            topic, max_tasks=4, lease=_LONG, wait=timedelta(seconds=5), timeout_s=_SETUP_TIMEOUT_S
        )
    held = {lease.id: lease for lease in leases}
    for kind in ("cancel", "reschedule", "get"):
        await client.enqueue(topic, task_id=kind, delay=_FAR, timeout_s=_SETUP_TIMEOUT_S)
    asks: dict[str, Ask] = {
        "enqueue": lambda s: client.enqueue(topic, task_id="again", delay=_FAR, timeout_s=s),
        "retrieve": lambda s: client.retrieve(empty, timeout_s=s),
        "ack": lambda s: client.ack(held["ack"], timeout_s=s),
        "nack": lambda s: client.nack(held["nack"], dead_letter=True, timeout_s=s),
        "extend": lambda s: client.extend(held["extend"], _LONG, timeout_s=s),
        "release": lambda s: client.release(held["release"], timeout_s=s),
        "cancel": lambda s: client.cancel(topic, "cancel", timeout_s=s),
        "reschedule": lambda s: client.reschedule(topic, "reschedule", delay=_FAR, timeout_s=s),
        "get": lambda s: client.get_task(topic, "get", timeout_s=s),
    }
    return [Prober(mode, kind, ask) for kind, ask in asks.items()]


@dataclass(slots=True)
class Measured:
    """Milliseconds by durability and kind of operation, one for each failover.

    Attributes:
        elected_ms: from the kill until a majority of Sentinels named a new master.
        synced_ms: from then until the old master, started again, was in sync as the last replica.
        again_ms: from the new master to the first answer.
        after_sync_ms: from the last replica's being in sync to the first answer; 0 if that came
            before.
    """

    elected_ms: list[float] = field(default_factory=list)
    synced_ms: list[float] = field(default_factory=list)
    after_sync_ms: dict[tuple[Mode, str], list[float]] = field(default_factory=dict)
    again_ms: dict[tuple[Mode, str], list[float]] = field(default_factory=dict)

    def worst_p95_ms(self, mode: Mode) -> float:
        """The time of the kind that took longest."""
        return max(quantile(times, 0.95) for (m, _), times in self.again_ms.items() if m is mode)

    def table(self) -> Table:
        """What docs/OPERATIONS.md shows."""
        modes = list(Mode)
        table = Table(
            "operation",
            *(f"{mode.name} p50/p95 (ms)" for mode in modes),
            "ALL, once all are in sync",
            box=None,
        )
        kinds = list(dict.fromkeys(kind for _, kind in self.again_ms))
        for kind in kinds:
            table.add_row(
                kind,
                *(_cell(self.again_ms.get((mode, kind), [])) for mode in modes),
                _cell(self.after_sync_ms.get((Mode.ALL, kind), [])),
            )
        table.add_row("(kill to new master)", _cell(self.elected_ms))
        table.add_row("(new master to all in sync)", _cell(self.synced_ms))
        return table


def _cell(times_ms: list[float]) -> str:
    return f"{quantile(times_ms, 0.5):.0f} / {quantile(times_ms, 0.95):.0f}"


def quantile(values: Iterable[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def latency(count: int, measured: Measured) -> Procedure:
    """Kills the master so many times, and fills in how long that was felt."""

    async def drive(session: RecordedSession) -> None:
        async with _probing(session) as asking:
            for _ in range(count):
                await session.check_health()
                await asyncio.sleep(_REST_S)
                await _one(session, asking, measured)

    other_topics = tuple(topic for mode in Mode for topic in topics_of(mode))
    return Procedure(
        "how long a failover is felt, by operation and durability",
        drive,
        other_topics=other_topics,
        fails_none=False,
    )


async def _one(session: RecordedSession, asking: list[Prober], measured: Measured) -> None:
    cluster = session.sentinel
    old = await cluster.wait_for_master()
    async with session.step("kill", old.name):
        killed_s = time.monotonic()
        await cluster.kill(old)
        for prober in asking:
            prober.listen()
        await cluster.wait_for_master(old)
        elected_s = time.monotonic()
    measured.elected_ms.append((elected_s - killed_s) * 1_000)
    await asyncio.sleep(max(0.0, killed_s + DOWN_S - time.monotonic()))
    await cluster.restart(old)
    await cluster.wait_until_in_sync(60.0)
    synced_s = time.monotonic()
    measured.synced_ms.append((synced_s - elected_s) * 1_000)
    for prober in asking:
        await prober.answered.wait()
        assert prober.first_s is not None
        # An answer from the new master may come before we have noticed that there is one.
        took_ms = max(0.0, prober.first_s - elected_s) * 1_000
        measured.again_ms.setdefault((prober.mode, prober.kind), []).append(took_ms)
        waited_ms = max(0.0, prober.first_s - synced_s) * 1_000
        measured.after_sync_ms.setdefault((prober.mode, prober.kind), []).append(waited_ms)


@asynccontextmanager
async def _probing(session: RecordedSession) -> AsyncIterator[list[Prober]]:
    asking = [prober for mode in Mode for prober in await probers(session.client, mode)]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(one.run(), name=f"chaos probe {one.mode} {one.kind}")
            for one in asking
        ]
        try:
            yield asking
        finally:
            for task in tasks:
                task.cancel()


__all__ = ["Measured", "Prober", "latency", "quantile"]
