"""The worker against a queue that is a few lists."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from ddq import errors
from ddq.client import Client, Lease, TaskState
from ddq.worker import DeadLetter, Handler, Job, Retry, Verdict, Worker
from ddq.worker.storeclock import StoreClock
from tests.client.queue import LEASE, FakeQueue, Signal, lease


def worker(queue: FakeQueue, handler: Handler, **options: Any) -> Worker:
    settings: dict[str, Any] = {
        "lease": LEASE,
        "stop_when_idle": timedelta(milliseconds=30),
        "grace": timedelta(seconds=20),
        **options,
    }
    return Worker(cast(Client, queue), "mail", handler, **settings)


def counted(made: Worker) -> dict[Verdict, int]:
    return {verdict: count for verdict, count in made.stats.verdicts.items() if count}


async def run(queue: FakeQueue, handler: Handler, **options: Any) -> Worker:
    made = worker(queue, handler, **options)
    await asyncio.wait_for(made.run(), 20)
    assert sum(made.stats.verdicts.values()) == made.stats.delivered
    assert made.stats.running == 0
    return made


async def nothing(_: Job) -> None:
    pass


async def forever(_: Job) -> None:
    await asyncio.Event().wait()


# How attempts end


async def test_a_return_acknowledges() -> None:
    queue = FakeQueue(lease("a"), lease("b"))
    seen = []

    async def handler(job: Job) -> None:
        seen.append((job.topic, job.id, job.payload, job.attempt))

    made = await run(queue, handler)
    assert seen == [("mail", "a", b"a", 1), ("mail", "b", b"b", 1)]
    assert queue.said == [("ack", "a"), ("ack", "b")]
    assert counted(made) == {Verdict.ACKED: 2}


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("no such address"), ("ValueError: no such address", None, False)),
        (KeyError(), ("KeyError", None, False)),
        (Retry("busy", delay=timedelta(seconds=9)), ("busy", timedelta(seconds=9), False)),
        (Retry(), ("", None, False)),
        (DeadLetter("bounced"), ("bounced", None, True)),
    ],
)
async def test_a_raise_ends_the_attempt(
    raised: Exception, expected: tuple[str, timedelta | None, bool]
) -> None:
    queue = FakeQueue(lease("a"))

    async def handler(_: Job) -> None:
        raise raised

    made = await run(queue, handler)
    (verdict,) = queue.nacks
    assert (verdict["error"], verdict["delay"], verdict["dead_letter"]) == expected
    assert counted(made) == {Verdict.NACKED: 1}


async def test_the_last_attempt_is_counted_as_dead() -> None:
    queue = FakeQueue(lease("a"))
    queue.next_state = TaskState.DEAD

    async def handler(_: Job) -> None:
        raise ValueError

    assert counted(await run(queue, handler)) == {Verdict.DEAD: 1}


@pytest.mark.parametrize(
    ("error", "verdict"),
    [(errors.OutcomeUnknown("?"), Verdict.UNKNOWN), (errors.LeaseLost("gone"), Verdict.LOST)],
)
async def test_an_ack_that_is_not_taken(error: errors.DdqError, verdict: Verdict) -> None:
    queue = FakeQueue(lease("a"))
    queue.end_error = error
    assert counted(await run(queue, nothing)) == {verdict: 1}


async def test_plain_functions_run_beside_each_other() -> None:
    queue = FakeQueue(*(lease(str(index)) for index in range(12)))
    meeting = threading.Barrier(12, timeout=20)

    def handler(_: Job) -> None:
        meeting.wait()

    made = await run(queue, handler, concurrency=12)
    assert counted(made) == {Verdict.ACKED: 12}


async def test_a_coroutine_from_a_plain_function_is_run() -> None:
    queue = FakeQueue(lease("a"))

    async def inner() -> None:
        raise ValueError

    await run(queue, lambda _: inner())
    assert queue.said == [("nack", "a")]


async def test_objects_can_be_async_handlers() -> None:
    class Sender:
        async def __call__(self, job: Job) -> None:
            assert threading.current_thread() is threading.main_thread()

    made = await run(FakeQueue(lease("a")), Sender())
    assert counted(made) == {Verdict.ACKED: 1}


# How many


async def test_no_more_than_can_start() -> None:
    queue = FakeQueue(*(lease(str(index)) for index in range(9)))
    running: set[str] = set()
    counts: list[int] = []
    meeting = asyncio.Barrier(3)

    async def handler(job: Job) -> None:
        running.add(job.id)
        counts.append(len(running))
        await meeting.wait()
        running.discard(job.id)

    made = await run(queue, handler, concurrency=3)
    assert max(counts) == 3
    assert max(call["max_tasks"] for call in queue.retrieves) == 3
    assert made.stats.delivered == 9


async def test_a_full_worker_does_not_ask() -> None:
    queue = FakeQueue(lease("a"), lease("b"))
    queue.ready[0] = lease("a", span=timedelta(seconds=60))
    free, started = asyncio.Event(), asyncio.Event()

    async def handler(_: Job) -> None:
        started.set()
        await free.wait()

    made = worker(queue, handler, concurrency=1)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        running = group.create_task(made.run())
        await started.wait()
        await asyncio.sleep(0)
        assert [call["max_tasks"] for call in queue.retrieves] == [1]
        free.set()
        await running
    assert made.stats.delivered == 2


async def test_it_stops_after_max_jobs() -> None:
    queue = FakeQueue(*(lease(str(index)) for index in range(9)))
    made = await run(queue, nothing, concurrency=4, max_jobs=6, stop_when_idle=None)
    assert made.stats.delivered == 6
    assert len(queue.ready) == 3


async def test_an_early_delivery_is_counted() -> None:
    now = datetime.now(UTC)
    queue = FakeQueue(
        lease("early", due=now + timedelta(milliseconds=1), store_time=now),
        lease("on time", due=now, store_time=now),
    )
    assert (await run(queue, nothing)).stats.early == 1


# Keeping leases


async def test_heartbeats_keep_a_lease() -> None:
    queue = FakeQueue(lease("a", span=timedelta(seconds=1)))

    async def handler(job: Job) -> None:
        first_s = job.deadline_s
        while queue.extends < 2:
            queue.extended.clear()
            await queue.extended.wait()
        # Longer than the lease was to begin with.
        assert job.deadline_s > first_s

    assert counted(await run(queue, handler, lease=timedelta(seconds=1))) == {Verdict.ACKED: 1}


async def test_a_heartbeat_may_fail() -> None:
    queue = FakeQueue(lease("a", span=timedelta(seconds=60)))
    queue.extend_error = errors.OutcomeUnknown("?")

    async def handler(_: Job) -> None:
        while queue.extends < 3:
            queue.extended.clear()
            await queue.extended.wait()
        queue.extend_error = None

    assert counted(await run(queue, handler)) == {Verdict.ACKED: 1}


@pytest.mark.parametrize("error", [errors.LeaseLost("gone"), errors.TaskNotFound("gone")])
async def test_a_lost_lease_cancels_the_handler(error: errors.DdqError) -> None:
    queue = FakeQueue(lease("a", span=timedelta(seconds=60)))
    queue.extend_error = error
    made = await run(queue, forever)
    assert queue.said == []
    assert counted(made) == {Verdict.LOST: 1}


async def test_a_lease_that_runs_out_cancels_the_handler_before_it_does() -> None:
    queue = FakeQueue(lease("a", span=timedelta(seconds=1)))
    queue.extend_error = errors.StoreUnreachable("down")
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    ended_s = []

    async def handler(job: Job) -> None:
        try:
            await forever(job)
        finally:
            assert job.is_lost
            ended_s.append(loop.time())

    made = await run(queue, handler, lease=timedelta(seconds=1))
    assert counted(made) == {Verdict.LOST: 1}
    assert queue.said == []
    # A quarter of the lease is the margin for clocks.
    assert 0.7 < ended_s[0] - started_s < 1.0


async def test_a_handler_that_returns_after_its_lease_was_lost_is_acknowledged() -> None:
    queue = FakeQueue(lease("a"))
    queue.extend_error = errors.LeaseLost("gone")

    async def handler(job: Job) -> None:
        try:
            await forever(job)
        except asyncio.CancelledError:
            return

    # The token may be good again: a task that was taken back and not leased since takes its ack.
    made = await run(queue, handler)
    assert queue.said == [("ack", "a")]
    assert counted(made) == {Verdict.ACKED: 1}


async def test_a_plain_function_sees_that_its_lease_is_lost_and_keeps_its_place() -> None:
    queue = FakeQueue(lease("a"), lease("b"))
    queue.extend_error = errors.LeaseLost("gone")
    done: list[str] = []
    asked: list[int] = []

    def handler(job: Job) -> None:
        if job.id == "a":
            assert job.wait_until_lost(20)
            assert job.is_lost
            asked.append(len(queue.retrieves))
            queue.end_error = errors.LeaseLost("gone")
        else:
            queue.end_error = None
        done.append(job.id)

    made = await run(queue, handler, concurrency=1)
    assert done == ["a", "b"]
    # The other task was not leased before this one's thread had ended.
    assert asked == [1]
    # The server judges.
    assert queue.said == [("ack", "a"), ("ack", "b")]
    assert counted(made) == {Verdict.LOST: 1, Verdict.ACKED: 1}


def test_a_reply_that_was_read_late_counts_from_when_it_was_sent() -> None:
    clock = StoreClock()
    start = datetime(2030, 1, 1, tzinfo=UTC)

    def reply(after_s: float) -> Lease:
        return lease("a", span=timedelta(seconds=30), store_time=start + timedelta(seconds=after_s))

    assert clock.local_expiry_s(reply(0.0), 100.0) == pytest.approx(130.0)
    # Sent at 110, read at 135: the process was stopped for 25 s.
    assert clock.local_expiry_s(reply(10.0), 135.0) == pytest.approx(140.0)
    # A faster reply than ever shows that the others had been under way for 10 ms.
    assert clock.local_expiry_s(reply(50.0), 149.99) == pytest.approx(179.99)
    assert clock.local_expiry_s(reply(60.0), 160.0) == pytest.approx(189.99)
    # What is older than two minutes does not count: clocks drift.
    assert clock.local_expiry_s(reply(500.0), 600.0) == pytest.approx(630.0)
    assert clock.local_expiry_s(lease("a", span=timedelta(seconds=30)), 700.0) == 730.0


# Trouble


async def test_it_outlives_errors_of_the_server() -> None:
    queue = FakeQueue(lease("a"))
    queue.retrieve_errors = [
        errors.StoreUnreachable("down"),
        errors.OutcomeUnknown("?"),
        errors.OutcomeUnknown("?"),
    ]
    made = await run(queue, nothing)
    assert made.stats.delivered == 1
    ids = [call["request_id"] for call in queue.retrieves]
    # After an unknown outcome it asks again under the same name, for the leases it was granted.
    assert ids[0] != ids[1] == ids[2] == ids[3] != ids[4]


async def test_it_ends_with_an_error_that_will_not_go_away() -> None:
    queue = FakeQueue(lease("a", span=timedelta(seconds=60)))

    async def handler(_: Job) -> None:
        queue.retrieve_errors = [errors.InvalidArgument("topics: is empty")]
        await queue.failed.wait()
        await asyncio.sleep(0.01)

    with pytest.raises(errors.InvalidArgument, match="topics"):
        await asyncio.wait_for(worker(queue, handler, concurrency=2).run(), 20)
    # What ran was allowed to finish.
    assert queue.said == [("ack", "a")]


async def test_a_bug_in_a_callback_is_loud() -> None:
    def broken(_: Job, __: Verdict) -> None:
        raise RuntimeError("bug")

    made = worker(FakeQueue(lease("a")), nothing, on_settled=broken)
    with pytest.raises(RuntimeError, match="bug"):
        await asyncio.wait_for(made.run(), 20)


# Stopping


async def test_stop_lets_handlers_finish_and_hands_back_the_rest() -> None:
    queue = FakeQueue(lease("a"))
    started, free = asyncio.Event(), asyncio.Event()

    async def handler(_: Job) -> None:
        started.set()
        await free.wait()

    made = worker(queue, handler, stop_when_idle=None)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        running = group.create_task(made.run())
        await started.wait()
        await queue.waiting.wait()
        # What the retrieve under way has been granted without the worker knowing.
        queue.ready = [lease("b")]
        made.stop()
        made.stop()
        await queue.released.wait()
        assert not running.done()
        free.set()
        await running
    assert queue.said == [("release", "b"), ("ack", "a")]
    assert queue.retrieves[-1]["request_id"] == queue.retrieves[-2]["request_id"]
    assert counted(made) == {Verdict.RELEASED: 1, Verdict.ACKED: 1}


async def test_a_handler_that_outlasts_the_grace_time_is_stopped_and_its_task_released() -> None:
    queue = FakeQueue(lease("a", span=timedelta(seconds=60)))
    started = asyncio.Event()

    async def handler(job: Job) -> None:
        started.set()
        await forever(job)

    made = worker(queue, handler, grace=timedelta(milliseconds=20))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(made.run())
        await started.wait()
        made.stop()
    # Its attempt does not count: with max_attempts = 1 a nack would have been its death.
    assert queue.said == [("release", "a")]
    assert counted(made) == {Verdict.RELEASED: 1}


async def test_a_thread_that_outlasts_the_grace_time_is_left_behind() -> None:
    queue = FakeQueue(lease("a", span=timedelta(seconds=60)))
    started, free = threading.Event(), threading.Event()

    def handler(_: Job) -> None:
        started.set()
        free.wait(20)

    made = worker(queue, handler, grace=timedelta(milliseconds=20))
    try:
        async with asyncio.timeout(15), asyncio.TaskGroup() as group:
            group.create_task(made.run())
            await asyncio.to_thread(started.wait)
            made.stop()
        assert queue.said == [("release", "a")]
    finally:
        free.set()


async def test_a_cancelled_handler_may_clean_up_after_its_task_was_handed_back() -> None:
    queue = FakeQueue(lease("a", span=timedelta(seconds=60)))
    started, steps = asyncio.Event(), []

    async def handler(job: Job) -> None:
        started.set()
        try:
            await forever(job)
        finally:
            await queue.released.wait()
            await asyncio.sleep(0)
            steps.append("cleaned up")

    made = worker(queue, handler, grace=timedelta(0), stop_when_idle=None)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        running = group.create_task(made.run())
        await started.wait()
        made.stop()
        await running
        assert steps == ["cleaned up"]
    assert queue.said == [("release", "a")]


@pytest.mark.parametrize("handler", [forever, lambda _: threading.Event().wait(0.2)])
async def test_cancelling_run_hands_back_and_passes_through(
    handler: Callable[[Job], Any],
) -> None:
    queue = FakeQueue(lease("a", span=timedelta(seconds=60)))
    made = worker(queue, handler, stop_when_idle=None)
    running = asyncio.create_task(made.run())
    # It has started the handler, and asks for more.
    await queue.waiting.wait()
    running.cancel()
    await asyncio.sleep(0)
    # As the end of asyncio.run() does to a task and to the one that awaits it.
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 10)
    assert queue.said == [("release", "a")]
    assert counted(made) == {Verdict.RELEASED: 1}


async def test_an_ack_that_is_cut_short_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddq.worker.attempts.STOP_TIMEOUT_S", 0.01)
    queue = FakeQueue(lease("a", span=timedelta(seconds=60)))
    queue.ending = Signal()
    made = worker(queue, nothing)
    running = asyncio.create_task(made.run())
    await queue.ending.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 10)
    assert counted(made) == {Verdict.UNKNOWN: 1}


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"max_jobs": 0}])
def test_nonsense_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        worker(cast(FakeQueue, None), nothing, **options)
