"""A worker on a stream: it holds what it can start, gives the rest back, and loses nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from ddq.client import Client, NewTask
from ddq.store.topology import Node
from ddq.worker import Job, Verdict, Worker
from tests.support.forwarder import Forwarder, forwarding
from tests.support.server import RunningServer

LEASE = timedelta(seconds=60)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def direct(server: RunningServer) -> AsyncIterator[Client]:
    async with Client(server.address) as client:
        await client.create_topic("mail")
        yield client


@pytest.fixture
async def link(server: RunningServer) -> AsyncIterator[Forwarder]:
    """A way to the server, on which replies may get lost."""
    host, _, port = server.address.partition(":")
    async with forwarding(Node(host, int(port))) as forwarders:
        yield forwarders[Node(host, int(port))]


async def counts(client: Client) -> tuple[int, int, int]:
    """How many tasks are ready, leased, and finished."""
    counts = (await client.stats("mail")).counts
    return counts.ready, counts.leased, counts.succeeded


async def reaches(client: Client, *wanted: int) -> None:
    """Returns when so many are ready, leased and finished."""
    while await counts(client) != wanted:
        pass


async def test_it_holds_no_more_than_it_can_start_and_gives_credit_as_places_get_free(
    direct: Client,
) -> None:
    await direct.enqueue_batch("mail", [NewTask(b"x") for _ in range(6)])
    free = asyncio.Semaphore(0)

    async def handler(_: Job) -> None:
        await free.acquire()

    made = Worker(direct, "mail", handler, concurrency=2, lease=LEASE)
    running = asyncio.create_task(made.run())
    for finished in range(5):
        await reaches(direct, 4 - finished, 2, finished)
        assert made.stats.running <= 3, "two at work, and one whose ack has arrived"
        free.release()
    await reaches(direct, 0, 1, 5)
    made.stop()
    free.release()
    await running
    assert made.stats.verdicts == {**dict.fromkeys(Verdict, 0), Verdict.ACKED: 6}


async def test_a_worker_with_free_places_gives_them_up_when_it_stops(direct: Client) -> None:
    begun, free = asyncio.Event(), asyncio.Event()

    async def handler(_: Job) -> None:
        begun.set()
        await free.wait()

    made = Worker(direct, "mail", handler, concurrency=10, lease=LEASE)
    running = asyncio.create_task(made.run())
    await direct.enqueue("mail", b"first")
    await begun.wait()
    made.stop()
    # What becomes ready from now on, or has reached the worker and was not started, is for others.
    for _ in range(3):
        await direct.enqueue("mail", b"later")
    await reaches(direct, 3, 1, 0)
    free.set()
    await running
    assert made.stats.verdicts[Verdict.ACKED] == 1
    leases = await direct.retrieve("mail", max_tasks=10, wait=timedelta(seconds=20))
    assert [lease.attempt for lease in leases] == [1] * 3


async def test_a_stream_that_breaks_in_the_middle_loses_no_task_and_starts_none_twice(
    direct: Client, link: Forwarder
) -> None:
    runs: Counter[str] = Counter()
    attempts: set[int] = set()
    settled = asyncio.Semaphore(0)

    async def handler(job: Job) -> None:
        runs[job.id] += 1
        attempts.add(job.attempt)

    ids = [f"task-{number}" for number in range(60)]
    async with Client(str(link.node)) as client:
        made = Worker(
            client, "mail", handler, concurrency=4, lease=LEASE, max_jobs=len(ids),
            on_settled=lambda *_: settled.release(),
        )  # fmt: skip
        running = asyncio.create_task(made.run())
        for first in range(0, len(ids), 10):
            # All places are free, and the server has credit for them.
            for _ in range(min(first, 10)):
                await settled.acquire()
            link.swallows = first % 20 == 10
            await direct.enqueue_batch(
                "mail", [NewTask(b"x", task_id) for task_id in ids[first : first + 10]]
            )
            # Some are leased in replies that do not arrive.
            while link.swallows and (await counts(direct))[1] == 0:
                pass
            await link.cut()
            link.swallows = False
        await running
    assert runs == dict.fromkeys(ids, 1)
    assert attempts == {1}
    await reaches(direct, 0, 0, len(ids))
