"""Overload: three times the rate that the system sustains, and what becomes of the calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.bench import driving, processes
from tests.bench.peers.driver import Job
from tests.bench.processes import BenchError
from tests.bench.systems import Running
from tests.bench.workloads import Figures, Setting, Workload

TIMES = 3
PRODUCERS = 3
"""Processes: a single one would need more than a core to call at such a rate."""
SUSTAINED_TASKS = 10_000
CALLERS = 200
DELAY_MS = 1_000
TIMEOUT_S = 5.0
BACKLOG_S = 1.5
"""A bounded topic holds what the system delivers in so long: the delay, and half a second more."""
DRAIN_S = 60.0
"""After the last call, for the deliveries of what was accepted."""
LIMIT_S = 600.0
"""Producers that get less of the processor than they need take longer than an overload lasts."""
SAMPLE_S = 0.25
MIB = 1 << 20


async def measure(setting: Setting, *, bounded: bool) -> Figures:
    """What was accepted and refused, the lateness of what was accepted, and the memory.

    Args:
        bounded: whether the system is to refuse tasks while it holds more than BACKLOG_S of them.
    """
    async with setting.system.start(setting.folder) as running:
        rate = await _sustained(setting, running)
        if bounded:
            if running.bound is None:
                raise BenchError("the number of its tasks cannot be bounded")
            await running.bound(int(BACKLOG_S * rate))
        return await _overload(setting, running, rate)


async def _sustained(setting: Setting, running: Running) -> float:
    """Tasks per second that are enqueued by callers which wait for their answers, and delivered."""
    count = min(setting.tasks, SUSTAINED_TASKS)
    out = setting.folder / "sustained"
    work = Job(
        "work", running.address, count, concurrency=setting.system.concurrency, out=str(out)
    )  # fmt: skip
    async with driving.consuming(setting.driver, work, setting.folder) as consumer:
        load = Job("enqueue", running.address, count, callers=CALLERS, delay_ms=DELAY_MS)
        await driving.produce(setting.driver, load, setting.folder)
        deliveries = await consumer.deliveries()
    if len(deliveries) < count:
        raise BenchError(f"{len(deliveries)} of {count} tasks were delivered at no excess load")
    at_ms = [each.at_ms for each in deliveries]
    return count / (max(at_ms) - min(at_ms)) * 1_000


async def _overload(setting: Setting, running: Running, sustained: float) -> Figures:
    seconds = setting.sizes.overload_s
    each = int(TIMES * sustained * seconds / PRODUCERS)
    offered = each * PRODUCERS
    stop = setting.folder / "stop"
    work = Job(
        "work", running.address, offered,
        concurrency=setting.system.concurrency, limit_s=LIMIT_S, stop=str(stop),
        out=str(setting.folder / "deliveries"),
    )  # fmt: skip
    loads = [
        Job(
            "steady", running.address, each,
            # The numbers of the sustained load come before.
            first=SUSTAINED_TASKS + producer * each,
            rate=each / seconds, min_delay_ms=DELAY_MS, max_delay_ms=DELAY_MS,
            timeout_s=TIMEOUT_S, out=str(setting.folder / f"calls-{producer}"),
        )
        for producer in range(PRODUCERS)
    ]  # fmt: skip
    async with driving.consuming(setting.driver, work, setting.folder) as consumer:
        async with sampled(running) as memory:
            answers = await asyncio.gather(
                *(driving.produce(setting.driver, load, setting.folder) for load in loads)
            )
        backlog = await drained(running)
        stop.touch()
        deliveries = await consumer.deliveries()
    calls = _read(Path(load.out) for load in loads)
    numbers = [each.number for each in deliveries]
    delivered = set(numbers)
    late = [each.late_ms for each in deliveries] or [float("nan")]
    took_s = max(answer["seconds"] for answer in answers)
    return {
        "sustained_per_s": sustained,
        "offered_per_s": offered / took_s,
        "accepted_per_s": len(calls["accepted"]) / took_s,
        "refused_per_s": len(calls["refused"]) / took_s,
        # Their time ended on the way, so that they may have been accepted.
        "unknown_per_s": len(calls["failed"]) / took_s,
        "p50_ms": driving.percentile(late, 0.5),
        "p99_ms": driving.percentile(late, 0.99),
        "behind_ms": max(answer["behind_ms"] for answer in answers),
        # What waits still is late, and not lost.
        "backlog": backlog,
        "missing": max(0, len(calls["accepted"] - delivered) - backlog),
        "duplicated": len(numbers) - len(delivered),
        "early": sum(each.late_ms < -driving.CLOCK_STEP_MS for each in deliveries),
        "foreign": len(delivered - calls["accepted"] - calls["failed"]),
        "server_mib": memory.mib[-1],
        "server_growth_mib": memory.growth_mib,
    }


async def drained(running: Running) -> int:
    """Waits until nothing is left, or for DRAIN_S; returns how many tasks are."""
    assert running.left is not None
    end_s = time.monotonic() + DRAIN_S
    while (left := await running.left()) and time.monotonic() < end_s:  # noqa: ASYNC110
        await asyncio.sleep(SAMPLE_S)
    return left


def _read(paths: Iterable[Path]) -> dict[str, set[int]]:
    """The numbers of the calls that were accepted, refused and failed."""
    found: dict[str, set[int]] = {"accepted": set(), "refused": set(), "failed": set()}
    for path in paths:
        for line in path.read_text(encoding="ascii").splitlines():
            name, number = line.split()
            found[name].add(int(number))
    return found


@dataclass
class Memory:
    """The resident memory of the server, in MiB, in the order of time."""

    mib: list[float] = field(default_factory=list)

    @property
    def growth_mib(self) -> float:
        """By how much its maximum in the last third exceeds that in the second."""
        third = max(1, len(self.mib) // 3)
        return max(self.mib[-third:]) - max(self.mib[third : 2 * third] or self.mib)


@asynccontextmanager
async def sampled(running: Running) -> AsyncIterator[Memory]:
    memory = Memory()

    def sample() -> None:
        memory.mib.append(processes.resident_bytes(running.pids["server"]) / MIB)

    async def sample_always() -> None:
        while True:
            sample()
            await asyncio.sleep(SAMPLE_S)

    sampling = asyncio.create_task(sample_always())
    try:
        yield memory
        sample()
    finally:
        sampling.cancel()


def overload(*, bounded: bool) -> Workload:
    """The workload, with a bound on the tasks of the system or without."""
    return Workload(
        "overload-3-bounded" if bounded else "overload-3",
        "three times the sustained rate"
        + (f", at most {BACKLOG_S:g} s of tasks at once" if bounded else "")
        + ": lateness of what is accepted",
        partial(measure, bounded=bounded),
        "p99_ms",
        more_is_better=False,
        suits=lambda system: system.works,
        alone=True,
    )
