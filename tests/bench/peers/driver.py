"""What the Python drivers share: the job, the payload, the load, and the record of deliveries."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

HEAD_BYTES = 24
"""A number of 10 digits, a due time of 13 digits, and a dot."""

DUPLICATES_S = 1.0
"""How long a worker still listens after the last expected delivery, for duplicates."""


@dataclass(frozen=True)
class Task:
    """A task of the benchmark.

    Attributes:
        number: from 0; in the payload, so that each delivery can be attributed.
        due_ms: since 1970, in whole milliseconds.
    """

    number: int
    due_ms: int
    payload: bytes


@dataclass(frozen=True)
class Job:
    """What a driver is started for.

    Attributes:
        do: enqueue, steady or work.
        address: HOST:PORT of what the peer's client connects to.
        first: the number of the first task.
        count: tasks to enqueue, or deliveries to expect.
        callers: concurrent callers of an enqueue.
        batch: tasks per call; 0 for single calls.
        due_ms: when all tasks are due, since 1970; 0: each is due delay_ms after its call.
        rate: tasks per second of a steady load; their delays are drawn from min_delay_ms to
            max_delay_ms.
        concurrency: handlers that a worker runs at once.
        limit_s: when a worker ends although deliveries are missing.
        stop: a worker also ends once this file exists; empty: none.
        timeout_s: of a call.
        out: the file for the deliveries of a worker, or for what became of each call of a steady
            load; empty: none.
    """

    do: str
    address: str
    count: int
    first: int = 0
    callers: int = 50
    batch: int = 0
    payload_bytes: int = 256
    due_ms: int = 0
    delay_ms: int = 3_600_000
    rate: float = 500.0
    min_delay_ms: int = 1_000
    max_delay_ms: int = 5_000
    seed: int = 1
    concurrency: int = 50
    limit_s: float = 60.0
    stop: str = ""
    timeout_s: float = 60.0
    out: str = ""

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def task(self, number: int, due_ms: int = 0) -> Task:
        """The task of this number, due when the job or ``due_ms`` says."""
        due_ms = due_ms or self.due_ms or round(time.time() * 1_000) + self.delay_ms
        head = f"{number:010d}{due_ms:013d}."
        return Task(number, due_ms, head.ljust(self.payload_bytes, ".").encode())


def parse(argument: str) -> Job:
    """The job of a command line; fields of other drivers are ignored."""
    given = json.loads(argument)
    return Job(**{name: given[name] for name in Job.__dataclass_fields__ if name in given})


def current() -> Job:
    """The job of this process."""
    return parse(sys.argv[1])


def say(**result: float | bool) -> None:
    """Prints a line of the result."""
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


@dataclass
class Deliveries:
    """The deliveries of a worker, each with the time at which its handler ran."""

    job: Job
    heads: list[bytes] = field(default_factory=list)
    at_ns: list[int] = field(default_factory=list)

    def record(self, payload: bytes | str) -> None:
        """Called by the handler."""
        self.at_ns.append(time.time_ns())
        head = payload[:HEAD_BYTES]
        self.heads.append(head.encode() if isinstance(head, str) else head)

    def ready(self) -> None:
        """Tells the runner that the worker listens."""
        self._cpu_s = time.process_time()
        say(ready=True)

    async def wait(self) -> None:
        """Waits for the expected deliveries and for duplicates of them; bounded by the job."""
        end_s = time.monotonic() + self.job.limit_s
        # There is one event per delivery: polling costs the worker less than an event would.
        while len(self.heads) < self.job.count and time.monotonic() < end_s:
            if self.job.stop and Path(self.job.stop).exists():  # noqa: ASYNC240 - takes no time
                break
            await asyncio.sleep(0.05)
        self.cpu_s = time.process_time() - self._cpu_s
        await asyncio.sleep(DUPLICATES_S)

    def wait_blocking(self) -> None:
        """The same in a program without an event loop."""
        asyncio.run(self.wait())

    def save(self) -> None:
        """Writes the file and prints the result; the last thing a worker does."""
        with Path(self.job.out).open("w", encoding="ascii") as file:
            file.writelines(
                f"{int(head[:10])} {int(head[10:23])} {at_ns / 1e6:.3f}\n"
                for head, at_ns in zip(self.heads, self.at_ns, strict=True)
            )
        say(delivered=len(self.heads), cpu_s=self.cpu_s)


async def produce(
    job: Job,
    one: Callable[[Task], Awaitable[object]],
    many: Callable[[list[Task]], Awaitable[object]] | None = None,
    is_refusal: Callable[[Exception], bool] = lambda _: False,
) -> None:
    """Runs an enqueue or a steady load and prints its result.

    Args:
        one: enqueues one task.
        many: enqueues several in one call; needed where the job has a batch.
        is_refusal: whether an error says that the system is full, and when to try again.
    """
    began_s, cpu_s = time.perf_counter(), time.process_time()
    calls = Calls(is_refusal)
    if job.do == "steady":
        await _steady(job, one, calls)
    else:
        await _closed(job, one, many)
    if job.out:
        calls.save(Path(job.out))
    say(
        seconds=time.perf_counter() - began_s,
        cpu_s=time.process_time() - cpu_s,
        failed=len(calls.failed),
        refused=len(calls.refused),
        behind_ms=calls.behind_s * 1_000,
    )


async def _closed(
    job: Job,
    one: Callable[[Task], Awaitable[object]],
    many: Callable[[list[Task]], Awaitable[object]] | None,
) -> None:
    """So many callers, each of which makes its next call when the last one is answered."""
    starts = iter(range(job.first, job.first + job.count, job.batch or 1))
    end = job.first + job.count

    async def caller() -> None:
        for start in starts:
            if job.batch:
                assert many is not None
                await many([job.task(n) for n in range(start, min(end, start + job.batch))])
            else:
                await one(job.task(start))

    async with asyncio.TaskGroup() as group:
        for _ in range(job.callers):
            group.create_task(caller())


@dataclass
class Calls:
    """What became of the calls of a steady load, by the numbers of their tasks.

    Attributes:
        failed: neither accepted nor refused as full; the task may have been enqueued.
        behind_s: by how many seconds the latest call was made too late.
    """

    is_refusal: Callable[[Exception], bool]
    accepted: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    behind_s: float = 0.0

    async def call(self, one: Callable[[Task], Awaitable[object]], task: Task) -> None:
        try:
            await one(task)
        except Exception as error:  # noqa: BLE001 - each peer has errors of its own
            ended = self.refused if self.is_refusal(error) else self.failed
            if len(ended) < 3:
                sys.stderr.write(f"an enqueue failed: {type(error).__name__}: {error}\n")
        else:
            ended = self.accepted
        ended.append(task.number)

    def save(self, path: Path) -> None:
        """Writes a line per call."""
        with path.open("w", encoding="ascii") as file:
            for name in ("accepted", "refused", "failed"):
                file.writelines(f"{name} {number}\n" for number in getattr(self, name))


async def _steady(job: Job, one: Callable[[Task], Awaitable[object]], calls: Calls) -> None:
    """Calls at the times of a clock, whether or not earlier ones are answered."""
    began_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for n, delay_ms in enumerate(_delays(job)):
            ahead_s = began_s + n / job.rate - time.perf_counter()
            calls.behind_s = max(calls.behind_s, -ahead_s)
            # Behind the clock too, the calls that wait must get their turn.
            await asyncio.sleep(max(0.0, ahead_s))
            due_ms = round(time.time() * 1_000) + delay_ms
            group.create_task(calls.call(one, job.task(job.first + n, due_ms)))


def _delays(job: Job) -> Iterator[int]:
    rng = random.Random(job.seed)
    for _ in range(job.count):
        yield rng.randint(job.min_delay_ms, job.max_delay_ms)
