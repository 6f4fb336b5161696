"""Schedulers as processes of their own: stopped, ended and many at once, on one store."""

from __future__ import annotations

import asyncio
import itertools
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from chaos.eventually import eventually
from ddq.config import Settings
from tests.cli.conftest import PROGRAM
from tests.service.test_metrics import Figures, scrape
from tests.support.queue import Queue, new_task
from tests.support.store import ControlledStore, StoreServer

TIMEOUT_S = 40.0
BATCH = 500

pytestmark = pytest.mark.timeout(3 * TIMEOUT_S)


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Waits for a condition that has no event."""
    await eventually(condition, TIMEOUT_S, f"it did not happen that {what}", error=AssertionError)


class SchedulerProcess:
    """`ddq scheduler`.

    Attributes:
        process: the process.
        metrics: HOST:PORT of its metrics.
    """

    def __init__(self, process: asyncio.subprocess.Process, metrics: str, log: Path) -> None:
        self.process = process
        self.metrics = metrics
        self._log = log

    async def figures(self) -> Figures:
        """Its metrics."""
        return await scrape(self.metrics)

    async def figure(self, name: str) -> float:
        """One of them."""
        return (await self.figures())[f"ddq_scheduler_{name}"]

    def epochs(self) -> list[int]:
        """By which it led, by its own log."""
        return [int(found) for found in re.findall(r"by epoch (\d+)", self._log.read_text())]


Start = Callable[..., Awaitable[SchedulerProcess]]


@pytest.fixture
async def start(store_server: StoreServer) -> AsyncIterator[Start]:
    """Starts schedulers, and ends them when the test is over."""
    started: list[asyncio.subprocess.Process] = []
    with TemporaryDirectory(prefix="ddq-test-") as folder:

        async def start_one(**settings: int) -> SchedulerProcess:
            flags = [
                text
                for name, value in settings.items()
                for text in (f"--{name.replace('_', '-')}", str(value))
            ]
            log = Path(folder) / f"{len(started)}.log"
            with log.open("wb") as stderr:
                process = await asyncio.create_subprocess_exec(
                    *PROGRAM, "scheduler", "--store", store_server.url, "--log-level", "debug",
                    "--metrics-listen", "127.0.0.1:0", *flags,
                    stdout=asyncio.subprocess.PIPE, stderr=stderr,
                )  # fmt: skip
            started.append(process)
            assert process.stdout is not None
            said = (await process.stdout.readline()).decode()
            found = re.search(r"http://([^/]+)/metrics", said)
            assert found is not None, said + log.read_text()
            return SchedulerProcess(process, found[1], log)

        yield start_one
        for process in started:
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            await process.wait()


@pytest.fixture
async def work(store_server: StoreServer) -> AsyncIterator[ControlledStore]:
    """Where producers enqueue; by the clocks of the machine."""
    controlled = ControlledStore(store_server, Settings(), real_time=True)
    yield controlled
    await controlled.close()


async def add_due_tasks(work: ControlledStore, topic: str, count: int, every_ms: int) -> Queue:
    """So many tasks, one of which is due every so many ms from now on."""
    queue = Queue(work, topic)
    await queue.create(journal=True)
    for first in range(0, count, BATCH):
        numbers = range(first, min(first + BATCH, count))
        await queue.enqueue(*(new_task(f"t{n}", delay_ms=n * every_ms) for n in numbers))
    return queue


def promotions(server: StoreServer, queue: Queue) -> list[dict[str, str]]:
    """What the journal has of them, oldest first."""
    entries: Any = server.sync.xrange(queue.key("journal"))
    return [
        {name: entry[name.encode()].decode() for name in ("id", "epoch")}
        for _, entry in entries
        if entry[b"op"] == b"promote"
    ]


async def test_a_leader_that_was_stopped_promotes_nothing_after_its_successors_epoch(
    store_server: StoreServer, start: Start, work: ControlledStore
) -> None:
    """SIGSTOP for longer than its lease: it still believes that it leads, and is refused."""
    count = 1_000
    old = await start(leader_lease_ms=300)
    queue = await add_due_tasks(work, "jobs", count, 5)

    async def promoted_by(epoch: str) -> bool:
        # However long a process takes to start, there is something to do when it is there.
        nonlocal count
        await queue.add(f"t{count}")
        count += 1
        return any(entry["epoch"] == epoch for entry in promotions(store_server, queue))

    await until(lambda: promoted_by("1"), "the first one leads")
    old.process.send_signal(signal.SIGSTOP)
    new = await start(leader_lease_ms=300)
    await until(lambda: promoted_by("2"), "the other one takes over")
    old.process.send_signal(signal.SIGCONT)

    async def noticed() -> bool:
        # Without something to do it would not try.
        nonlocal count
        await queue.add(f"t{count}")
        count += 1
        return await old.figure("deposed_total") > 0

    await until(noticed, "the one that was stopped notices")

    async def finished() -> bool:
        return len(promotions(store_server, queue)) == count

    await until(finished, "everything is ready")

    entries = promotions(store_server, queue)
    epochs = [int(entry["epoch"]) for entry in entries]
    assert epochs == sorted(epochs), "G3 promote once: an old epoch came back"
    assert len({entry["id"] for entry in entries}) == count, "G3 promote once"
    led = Counter(epoch for process in (old, new) for epoch in process.epochs())
    assert set(led.values()) == {1}, f"G12 one leader: {led}"
    # The journal says by which epoch each was promoted; each of them by the owner of that epoch. A
    # process that was stopped for longer than the store's time-out does not get the reply to its
    # last batch, so it counts at most one batch less for each reply that was lost.
    for process in (old, new):
        own = sum(epoch in set(process.epochs()) for epoch in epochs)
        figures = await process.figures()
        lost_count = figures['ddq_store_sends_failed_total{how="lost"}']
        least = own - lost_count * Settings().promote_batch_count
        assert least <= figures["ddq_scheduler_promoted_total"] <= own, "G8 fenced"


async def test_a_leader_that_is_asked_to_stop_hands_over(
    store_server: StoreServer, start: Start, work: ControlledStore
) -> None:
    """Its lease is longer than this test may take, so the next leader must not wait for it."""
    lease_ms = round(10 * TIMEOUT_S * 1_000)
    old = await start(leader_lease_ms=lease_ms)
    queue = await add_due_tasks(work, "jobs", 2_000, 20)

    async def leads() -> bool:
        return len(promotions(store_server, queue)) > 0

    await until(leads, "the first one leads")
    new = await start(leader_lease_ms=lease_ms)
    # So that it has been turned away.
    known = len(promotions(store_server, queue))

    async def goes_on() -> bool:
        return len(promotions(store_server, queue)) > known + 10

    await until(goes_on, "the first one goes on")
    old.process.send_signal(signal.SIGTERM)
    assert await old.process.wait() == 0

    added = itertools.count()

    async def took_over() -> bool:
        # However long all of this takes, there is something to do.
        await queue.add(f"late{next(added)}")
        return await new.figure("promoted_total") > 0

    await until(took_over, "the other one leads")
    assert (old.epochs(), new.epochs()) == ([1], [2])


async def test_busy_shards_spread_over_the_schedulers(start: Start, work: ControlledStore) -> None:
    """Though the first one that was there led all of them."""
    topics, lease_ms = 60, 1_000
    first = await start(leader_lease_ms=lease_ms)
    for number in range(topics):
        await add_due_tasks(work, f"topic{number}", 400, 200)

    async def leads_all() -> bool:
        return await first.figure("shards_led") == topics

    await until(leads_all, "the first one leads everything")
    schedulers = [
        first,
        await start(leader_lease_ms=lease_ms),
        await start(leader_lease_ms=lease_ms),
    ]

    async def spread() -> bool:
        led = [await scheduler.figure("shards_led") for scheduler in schedulers]
        # A fair draw leaves these bounds once in a million runs.
        return sum(led) == topics and min(led) >= 4 and max(led) <= topics * 0.7

    await until(spread, "each leads its part")
