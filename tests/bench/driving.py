"""Runs the driver of a system, and checks what its worker was given."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ddq.child import launched
from tests.bench import processes
from tests.bench.peers.driver import Job
from tests.bench.processes import BenchError
from tests.bench.systems import Driver, Running

CLOCK_STEP_MS = 1.0
"""Due times are whole milliseconds: a delivery within the same one is not early."""
ENQUEUE_LIMIT_S = 600.0
EXIT_LIMIT_S = 60.0


@dataclass(frozen=True)
class Delivery:
    """A delivery of a task to a handler; times since 1970."""

    number: int
    due_ms: int
    at_ms: float

    @property
    def late_ms(self) -> float:
        return self.at_ms - self.due_ms


@dataclass(frozen=True)
class Exactness:
    """How the deliveries compare with what was enqueued; all zero is exact.

    Attributes:
        missing: tasks that no handler was given.
        duplicated: deliveries beyond the first of a task.
        early: deliveries before their due time.
        foreign: deliveries of a task that was not enqueued.
    """

    missing: int
    duplicated: int
    early: int
    foreign: int


def exactness(deliveries: Sequence[Delivery], count: int) -> Exactness:
    """Compares deliveries with the tasks 0 to ``count`` - 1."""
    numbers = {each.number for each in deliveries}
    wanted = set(range(count))
    return Exactness(
        missing=len(wanted - numbers),
        duplicated=len(deliveries) - len(numbers),
        early=sum(each.late_ms < -CLOCK_STEP_MS for each in deliveries),
        foreign=len(numbers - wanted),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not exceeded by this share of all.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("there are no values")
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


def read_deliveries(path: Path) -> list[Delivery]:
    """The deliveries that a worker has saved."""
    words = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return [Delivery(int(number), int(due), float(at)) for number, due, at in words]


async def _start(driver: Driver, job: Job, log: Path) -> asyncio.subprocess.Process:
    with log.open("ab") as errors:
        return await asyncio.create_subprocess_exec(
            *launched([*driver.command, json.dumps(asdict(job))]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **driver.env},
        )


async def _line(process: asyncio.subprocess.Process, log: Path, limit_s: float) -> dict[str, Any]:
    """The next line of a driver.

    Raises:
        BenchError: it ended or took too long.
    """
    assert process.stdout is not None
    try:
        async with asyncio.timeout(limit_s):
            # A library may print a banner of its own first.
            while (line := await process.stdout.readline()) and not line.startswith(b"{"):
                pass
    except TimeoutError:
        raise BenchError(f"a driver took longer than {limit_s:g} s") from None
    if not line:
        raise BenchError(f"a driver failed: {processes.tail(log)}")
    answer: dict[str, Any] = json.loads(line)
    return answer


async def _exit(process: asyncio.subprocess.Process) -> None:
    """Waits for the end of a driver that has answered; it may still write files.

    Raises:
        BenchError: it does not end.
    """
    try:
        async with asyncio.timeout(EXIT_LIMIT_S):
            await process.wait()
    except TimeoutError:
        raise BenchError(f"a driver did not end within {EXIT_LIMIT_S:g} s") from None


async def produce(
    driver: Driver, job: Job, folder: Path, limit_s: float = ENQUEUE_LIMIT_S
) -> dict[str, Any]:
    """Runs an enqueue or a steady load: seconds, cpu_s, failed, refused, behind_ms.

    Raises:
        BenchError: it failed, or a call of an enqueue did.
    """
    log = folder / f"{job.do}-{job.first}.log"
    process = await _start(driver, job, log)
    try:
        answer = await _line(process, log, limit_s)
        await _exit(process)
    finally:
        await processes.end(process)
    if job.do == "enqueue" and answer.get("failed"):
        raise BenchError(f"{answer['failed']} calls failed: {processes.tail(log)}")
    return answer


class Consumer:
    """A worker process that listens."""

    def __init__(self, process: asyncio.subprocess.Process, job: Job, log: Path) -> None:
        self._process = process
        self._job = job
        self._log = log
        self.cpu_s = math.nan

    async def deliveries(self) -> list[Delivery]:
        """Waits for the worker's end; at most for its limit.

        Raises:
            BenchError: it failed.
        """
        answer = await _line(self._process, self._log, self._job.limit_s + EXIT_LIMIT_S)
        await _exit(self._process)
        self.cpu_s = float(answer["cpu_s"])
        return read_deliveries(Path(self._job.out))


@asynccontextmanager
async def consuming(driver: Driver, job: Job, folder: Path) -> AsyncIterator[Consumer]:
    """A worker process, from the moment it listens; ended on exit."""
    log = folder / "work.log"
    process = await _start(driver, job, log)
    try:
        await _line(process, log, EXIT_LIMIT_S)
        yield Consumer(process, job, log)
    finally:
        await processes.end(process)


class Cpu:
    """The CPU time of a system's processes since this object was created."""

    def __init__(self, running: Running) -> None:
        self._pids = running.pids
        self._before = self._read()

    def _read(self) -> dict[str, float]:
        return {layer: processes.cpu_s(pid) for layer, pid in self._pids.items()}

    def per_task_us(self, count: int, client_s: float) -> dict[str, float]:
        """Microseconds per task, by layer: ``cpu_client_us`` and so on."""
        used = {layer: now - self._before[layer] for layer, now in self._read().items()}
        used["client"] = client_s
        return {f"cpu_{layer}_us": seconds / count * 1e6 for layer, seconds in used.items()}
