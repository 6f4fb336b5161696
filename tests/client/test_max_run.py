"""max_run: an attempt whose handler runs for too long ends with its own text."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from datetime import timedelta
from typing import cast

import pytest

from ddq.client import Client
from ddq.worker import DeadLetter, Job, Retry, Verdict, Worker
from tests.client.queue import FakeQueue, Signal, lease
from tests.client.test_worker import counted, forever, nothing, run, worker

SHORT = timedelta(milliseconds=20)
TEXT = "the handler ran longer than max_run (20ms)"


class NackedQueue(FakeQueue):
    """Says when a nack has come."""

    def __init__(self, *ready: object) -> None:
        super().__init__(*ready)  # type: ignore[arg-type]
        self.nacked = threading.Event()

    async def nack(self, ref, **verdict):  # type: ignore[no-untyped-def]
        result = await super().nack(ref, **verdict)
        self.nacked.set()
        return result


async def test_an_async_handler_is_cancelled() -> None:
    queue = FakeQueue(lease("a", span=timedelta(seconds=60)), lease("b"))
    cancelled = []

    async def handler(job: Job) -> None:
        if job.id == "b":
            return
        try:
            await forever(job)
        finally:
            assert job.is_lost
            cancelled.append(job.id)

    made = await run(queue, handler, max_run=SHORT)
    assert cancelled == ["a"]
    (verdict,) = queue.nacks
    assert (verdict["error"], verdict["delay"], verdict["dead_letter"]) == (TEXT, None, False)
    assert counted(made) == {Verdict.NACKED: 1, Verdict.ACKED: 1}


async def test_a_plain_function_that_never_returns_ends_its_attempt_and_keeps_its_place() -> None:
    queue = NackedQueue(lease("a", span=timedelta(seconds=60)))
    retrieves_counts: list[int] = []

    def handler(job: Job) -> None:
        if job.id == "a":
            # It looks at nothing, and only the test ends it.
            assert queue.nacked.wait(20)
            retrieves_counts.append(len(queue.retrieves))
            queue.ready = [lease("b")]

    made = await run(queue, handler, max_run=SHORT, concurrency=1)
    assert [verdict["error"] for verdict in queue.nacks] == [TEXT]
    # What it returned counts for nothing more, and no task was leased before it had.
    assert queue.said == [("nack", "a"), ("ack", "b")]
    assert retrieves_counts == [1]
    assert counted(made) == {Verdict.NACKED: 1, Verdict.ACKED: 1}


async def test_a_plain_function_that_looks_at_its_job_can_finish() -> None:
    queue = FakeQueue(lease("a", span=timedelta(seconds=60)))

    def handler(job: Job) -> None:
        assert job.wait_until_lost(20)

    made = await run(queue, handler, max_run=SHORT)
    assert queue.said == [("ack", "a")]
    assert counted(made) == {Verdict.ACKED: 1}


@pytest.mark.parametrize(
    ("raised", "error", "dead"),
    [
        (ValueError("closed"), TEXT, False),
        (Retry("later"), "later", False),
        (DeadLetter("never"), "never", True),
    ],
)
async def test_an_exception_of_a_handler_that_is_asked_to_stop_is_its_verdict(
    raised: Exception, error: str, dead: bool
) -> None:
    queue = FakeQueue(lease("a", span=timedelta(seconds=60)))

    async def handler(job: Job) -> None:
        try:
            await forever(job)
        except asyncio.CancelledError:
            raise raised from None

    await run(queue, handler, max_run=SHORT)
    (verdict,) = queue.nacks
    assert (verdict["error"], verdict["dead_letter"]) == (error, dead)


async def test_a_worker_whose_places_are_all_taken_still_stops() -> None:
    queue = NackedQueue(lease("a", span=timedelta(seconds=60)))
    free = threading.Event()
    started = Signal()

    def handler(_: Job) -> None:
        started.set()
        free.wait(20)

    made = worker(queue, handler, max_run=SHORT, concurrency=1, stop_when_idle=None)
    try:
        async with asyncio.timeout(15), asyncio.TaskGroup() as group:
            group.create_task(made.run())
            await started.wait()
            await asyncio.to_thread(queue.nacked.wait)
            made.stop()
            await asyncio.sleep(0)
            made.stop(now=True)
    finally:
        free.set()
    assert counted(made) == {Verdict.NACKED: 1}


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="max_run"):
        Worker(cast(Client, None), "mail", nothing, max_run=timedelta(0))


@pytest.mark.parametrize(
    ("own", "of_topic"),
    [
        (None, SHORT),
        (SHORT, None),
        (SHORT, timedelta(hours=1)),
        (timedelta(hours=1), SHORT),
    ],
)
async def test_the_smaller_bound_of_worker_and_topic_holds(
    own: timedelta | None, of_topic: timedelta | None
) -> None:
    queue = FakeQueue(replace(lease("a", span=timedelta(seconds=60)), max_run=of_topic))
    made = await run(queue, forever, max_run=own)
    assert [verdict["error"] for verdict in queue.nacks] == [TEXT]
    assert counted(made) == {Verdict.NACKED: 1}
