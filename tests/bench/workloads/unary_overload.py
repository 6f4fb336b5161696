"""Overload by single calls of clients that do not wait: three times what the server sustains."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.bench import driving
from tests.bench.peers.driver import Job
from tests.bench.processes import BenchError
from tests.bench.raw_load import Ends, RawLoad
from tests.bench.systems import Running
from tests.bench.workloads import Figures, Setting, Workload
from tests.bench.workloads.overload import DELAY_MS, TIMES, drained, sampled

CONNECTIONS = 16
CALLERS = 50
SUSTAINED_S = 10.0
WARM_S = 3.0
BACKLOG_S = 2.0
"""The topic holds what the system sustains in so long: the delay, and a second more."""
PROBE_S = 0.1
"""A client that waits for its answers calls so often."""
CALM_S = 5.0
"""Before the overload and behind it, for the probe alone."""
WELL_MS = 100.0
"""A call of the probe that takes longer, or is refused, shows that the overload continues."""
LIMIT_S = 900.0


@dataclass
class Probe:
    """The calls of a client that waits for each answer: when each began, its time, and its end."""

    at_s: list[float] = field(default_factory=list)
    took_ms: list[float] = field(default_factory=list)
    how: list[str] = field(default_factory=list)

    def took(self, from_s: float, to_s: float) -> list[float]:
        """The times of the calls that began in this span, in ms."""
        spans = zip(self.at_s, self.took_ms, strict=True)
        return [took for at, took in spans if from_s <= at < to_s] or [float("nan")]

    def recovered_s(self, end_s: float) -> float:
        """From the end of the load to the end of the last call that was not well."""
        bad = [
            at + took / 1_000
            for at, took, how in zip(self.at_s, self.took_ms, self.how, strict=True)
            if (how != "accepted" or took > WELL_MS) and at + took / 1_000 > end_s
        ]
        return max(bad, default=end_s) - end_s


async def measure(setting: Setting) -> Figures:
    """What became of the calls, the lateness of what was accepted, the memory, and the recovery."""
    numbers = itertools.count()
    async with setting.system.start(setting.folder) as running:
        if running.bound is None:
            raise BenchError("the number of its tasks cannot be bounded")
        stop = setting.folder / "stop"
        work = Job(
            "work", running.address, 10**9, concurrency=setting.system.concurrency,
            limit_s=LIMIT_S, stop=str(stop), out=str(setting.folder / "deliveries"),
        )  # fmt: skip
        async with driving.consuming(setting.driver, work, setting.folder) as consumer:
            rate = await _sustained(running, numbers)
            await running.bound(int(BACKLOG_S * rate))
            figures, ends, (began_ms, ended_ms) = await _overload(setting, running, rate, numbers)
            backlog = await drained(running)
            stop.touch()
            deliveries = await consumer.deliveries()
    first = min(ends.accepted | ends.unknown)
    found = [each.number for each in deliveries if each.number >= first]
    delivered = set(found)
    late = [
        each.late_ms for each in deliveries if began_ms <= each.due_ms < ended_ms
    ] or [float("nan")]  # fmt: skip
    return {
        "sustained_per_s": rate,
        **figures,
        "late_p50_ms": driving.percentile(late, 0.5),
        "late_p99_ms": driving.percentile(late, 0.99),
        "late_max_ms": max(late),
        "backlog": backlog,
        "missing": max(0, len(ends.accepted - delivered) - backlog),
        "duplicated": len(found) - len(delivered),
        "foreign": len(delivered - ends.accepted - ends.unknown),
        "early": sum(each.late_ms < -driving.CLOCK_STEP_MS for each in deliveries),
    }


async def _sustained(running: Running, numbers: Iterator[int]) -> float:
    """Calls per second of callers that wait for each answer, while a worker finishes the tasks."""
    job = Job("enqueue", running.address, 0, delay_ms=DELAY_MS)
    load = RawLoad(running.address, job, numbers, CONNECTIONS)
    await load.open()
    await load.closed(CALLERS, WARM_S)
    before = load.ends.counts["accepted"]
    began_s = time.monotonic()
    await load.closed(CALLERS, SUSTAINED_S)
    accepted = load.ends.counts["accepted"] - before
    await load.close()
    took_s = time.monotonic() - began_s
    if await drained(running):
        raise BenchError("the tasks of callers that wait were not all delivered")
    # What was accepted may have been more than the worker finished in that time.
    return accepted / max(SUSTAINED_S, min(took_s, time.monotonic() - began_s - DELAY_MS / 1_000))


async def _overload(
    setting: Setting, running: Running, rate: float, numbers: Iterator[int]
) -> tuple[Figures, Ends, tuple[float, float]]:
    seconds = setting.sizes.overload_s
    job = Job("steady", running.address, 0, delay_ms=DELAY_MS)
    load = RawLoad(running.address, job, numbers, CONNECTIONS)
    await load.open()
    async with sampled(running) as memory, _probing(running, numbers) as (probe, probed):
        await asyncio.sleep(CALM_S)
        began_s, began_ms = time.monotonic(), time.time() * 1_000
        sent = await load.open_loop(TIMES * rate, seconds)
        end_s, ended_ms = time.monotonic(), time.time() * 1_000
        await asyncio.sleep(CALM_S)
    await load.close()
    counts, took_s = load.ends.counts, end_s - began_s
    during = probe.took(began_s, end_s)
    load.ends.accepted |= probed.ends.accepted
    load.ends.unknown |= probed.ends.unknown
    return (
        {
            "offered_per_s": sent / took_s,
            "accepted_per_s": counts["accepted"] / took_s,
            "overloaded_per_s": counts["overloaded"] / took_s,
            "topic_full_per_s": counts["topic full"] / took_s,
            "unknown_per_s": (counts["reset"] + counts["cut"] + counts["failed"]) / took_s,
            "call_p50_ms": driving.percentile(load.ends.call_ms or [float("nan")], 0.5),
            "call_p99_ms": driving.percentile(load.ends.call_ms or [float("nan")], 0.99),
            "probe_before_p99_ms": driving.percentile(probe.took(0.0, began_s), 0.99),
            "probe_during_p50_ms": driving.percentile(during, 0.5),
            "recovered_s": probe.recovered_s(end_s),
            "server_mib": max(memory.mib),
            "server_growth_mib": memory.growth_mib,
        },
        load.ends,
        (began_ms, ended_ms + DELAY_MS),
    )


@asynccontextmanager
async def _probing(
    running: Running, numbers: Iterator[int]
) -> AsyncIterator[tuple[Probe, RawLoad]]:
    probe = Probe()
    load = RawLoad(
        running.address, Job("steady", running.address, 0, delay_ms=DELAY_MS), numbers, 1
    )
    await load.open()

    async def call() -> None:
        while True:
            at_s = time.monotonic()
            how, took_ms = await load.one()
            probe.at_s.append(at_s)
            probe.took_ms.append(took_ms)
            probe.how.append(how)
            await asyncio.sleep(PROBE_S)

    calling = asyncio.create_task(call())
    try:
        yield probe, load
    finally:
        calling.cancel()
        with suppress(asyncio.CancelledError):
            await calling
        await load.close()


OVERLOAD_UNARY = Workload(
    "overload-3-unary",
    "three times the sustained rate of single calls: lateness of what is accepted, and recovery",
    measure,
    "late_p99_ms",
    more_is_better=False,
    suits=lambda system: system.works,
    alone=True,
)
