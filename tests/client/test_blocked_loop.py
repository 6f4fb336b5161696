"""A handler that blocks the program's event loop costs no lease, and is named."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from datetime import timedelta

import pytest

from ddq import errors
from ddq.worker import Job, Verdict
from tests.client.queue import FakeQueue, lease
from tests.client.test_worker import counted, run

WAIT_S = 20.0


class LogSignal(logging.Handler):
    """An event that is set by the first warning that holds a word."""

    def __init__(self, word: str) -> None:
        super().__init__(logging.WARNING)
        self._word = word
        self.seen = threading.Event()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        if self._word in record.getMessage() and not self.seen.is_set():
            self.text = record.getMessage()
            self.seen.set()


class WatchedQueue(FakeQueue):
    """Says to threads when heartbeats and releases have come, and a retrieve was ended."""

    def __init__(self, *ready: object) -> None:
        super().__init__(*ready)  # type: ignore[arg-type]
        self.two_heartbeats = threading.Event()
        self.all_released = threading.Event()
        self.ended = threading.Event()
        self.expect_released_count = 0

    async def retrieve(self, *arguments, **options):  # type: ignore[no-untyped-def]
        granted = await super().retrieve(*arguments, **options)
        if not options["wait"]:
            self.ended.set()
        return granted

    async def extend(self, ref, duration, *, timeout_s=None):  # type: ignore[no-untyped-def]
        result = await super().extend(ref, duration, timeout_s=timeout_s)
        if self.extends == 2:
            self.two_heartbeats.set()
        return result

    async def release(self, ref, *, timeout_s=None):  # type: ignore[no-untyped-def]
        result = await super().release(ref, timeout_s=timeout_s)
        released = sum(verb == "release" for verb, _ in self.said)
        if released == self.expect_released_count:
            self.all_released.set()
        return result


async def test_heartbeats_come_while_a_handler_blocks_the_loop() -> None:
    queue = WatchedQueue(lease("a"))
    seen: list[bool] = []

    async def handler(_: Job) -> None:
        seen.append(queue.two_heartbeats.wait(WAIT_S))

    made = await run(queue, handler)
    assert seen == [True]
    assert queue.said == [("ack", "a")]
    assert counted(made) == {Verdict.ACKED: 1}


async def test_tasks_behind_a_blocked_loop_are_released_and_none_starts_late() -> None:
    queue = WatchedQueue(*(lease(str(index)) for index in range(4)))
    queue.expect_released_count = 3
    late: list[str] = []
    ran: list[str] = []

    async def handler(job: Job) -> None:
        if time.monotonic() >= job.deadline_s:
            late.append(job.id)
        ran.append(job.id)
        if job.id == "0":
            assert queue.all_released.wait(WAIT_S)
            # They are there for any worker, this one included.
            queue.ready = [lease(str(index)) for index in range(1, 4)]

    made = await run(queue, handler, concurrency=4)
    assert late == []
    assert ran == ["0", "1", "2", "3"]
    assert counted(made) == {Verdict.RELEASED: 3, Verdict.ACKED: 4}


async def test_a_lease_whose_reply_was_read_too_late_is_handed_back() -> None:
    # Expired already, as for a process that was stopped between request and reply.
    queue = FakeQueue(lease("a", span=timedelta(0)))
    ran: list[str] = []

    async def handler(job: Job) -> None:
        ran.append(job.id)

    def plain(job: Job) -> None:
        ran.append(job.id)

    made = await run(queue, handler)
    assert counted(made) == {Verdict.RELEASED: 1}
    queue.ready = [lease("a", span=timedelta(0))]
    assert counted(await run(queue, plain)) == {Verdict.RELEASED: 1}
    assert ran == []


async def test_no_task_is_taken_for_a_loop_that_does_not_answer() -> None:
    queue = WatchedQueue(lease("a"))
    retrieves: list[int] = []

    async def handler(_: Job) -> None:
        if not retrieves:
            # The retrieve for the other place is ended, and asked what it was granted.
            assert queue.ended.wait(WAIT_S)
            queue.ready = [lease("b")]
            assert queue.two_heartbeats.wait(WAIT_S)
        retrieves.append(len(queue.retrieves))

    await run(queue, handler, concurrency=2, stop_when_idle=None, max_jobs=2)
    assert retrieves == [3, 4]


async def test_a_warning_names_the_handler_and_the_line() -> None:
    signal = LogSignal("has not answered")
    log = logging.getLogger("ddq.worker")
    log.addHandler(signal)
    try:

        async def sends_mail(_: Job) -> None:
            assert signal.seen.wait(WAIT_S)

        await run(FakeQueue(lease("a")), sends_mail)
    finally:
        log.removeHandler(signal)
    assert "sends_mail of mail/a" in signal.text
    assert "0.1 s, a third of the lease" in signal.text
    # Where it waits: in this file, or in what it calls.
    assert ".py:" in signal.text


async def test_a_program_that_blocks_its_own_loop_is_not_blamed_on_a_handler() -> None:
    signal = LogSignal("has not answered")
    log = logging.getLogger("ddq.worker")
    log.addHandler(signal)
    queue = FakeQueue(lease("a"))
    started, free = asyncio.Event(), asyncio.Event()

    async def handler(_: Job) -> None:
        started.set()
        await free.wait()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(run(queue, handler))
            await started.wait()
            assert signal.seen.wait(WAIT_S)
            free.set()
    finally:
        log.removeHandler(signal)
    assert "something blocks it" in signal.text


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_finished_handler_sends_its_ack_after_its_deadline_too(is_async: bool) -> None:
    queue = FakeQueue(lease("a"))
    lost = threading.Event()

    def work(job: Job) -> None:
        assert job.wait_until_lost(WAIT_S)
        lost.set()

    async def blocking(job: Job) -> None:
        work(job)

    queue.extend_error = errors.StoreUnreachable("down")
    made = await run(queue, blocking if is_async else work)
    assert lost.is_set()
    assert queue.said == [("ack", "a")]
    assert counted(made) == {Verdict.ACKED: 1}
