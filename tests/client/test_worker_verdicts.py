"""What a handler may ask for beside success and failure: a snooze, and a next run."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from ddq import errors
from ddq.client import Client
from ddq.worker import Handler, Job, Snooze, Verdict, Worker
from tests.client.queue import LEASE, FakeQueue, lease

FIVE_MINUTES = timedelta(minutes=5)


async def run(queue: FakeQueue, handler: Handler) -> dict[Verdict, int]:
    worker = Worker(
        cast("Client", queue), "mail", handler, lease=LEASE,
        stop_when_idle=timedelta(milliseconds=30), handle_signals=False,
    )  # fmt: skip
    await asyncio.wait_for(worker.run(), 20)
    return {verdict: count for verdict, count in worker.stats.verdicts.items() if count}


async def snoozing(_: Job) -> None:
    raise Snooze(FIVE_MINUTES)


async def test_a_raised_snooze_puts_the_task_off() -> None:
    queue = FakeQueue(lease("a"))
    assert await run(queue, snoozing) == {Verdict.SNOOZED: 1}
    assert (queue.said, queue.snoozes) == ([("snooze", "a")], [FIVE_MINUTES])


async def test_a_snooze_of_a_plain_function_puts_the_task_off() -> None:
    queue = FakeQueue(lease("a"))

    def handler(_: Job) -> None:
        raise Snooze(FIVE_MINUTES)

    assert await run(queue, handler) == {Verdict.SNOOZED: 1}


@pytest.mark.parametrize(
    ("error", "message", "delay"),
    [
        (errors.SnoozeLimit("too often"), "too often", FIVE_MINUTES),
        (errors.InvalidArgument("delay: is 0"), "the snooze was refused: delay: is 0", None),
    ],
)
async def test_a_snooze_that_is_refused_is_a_failed_attempt(
    error: errors.DdqError, message: str, delay: timedelta | None
) -> None:
    queue = FakeQueue(lease("a"))
    queue.snooze_error = error
    assert await run(queue, snoozing) == {Verdict.NACKED: 1}
    (nack,) = queue.nacks
    assert (nack["error"], nack["delay"]) == (message, delay)


async def test_a_snooze_without_an_answer_is_unknown() -> None:
    queue = FakeQueue(lease("a"))
    queue.snooze_error = errors.OutcomeUnknown("no answer")
    assert await run(queue, snoozing) == {Verdict.UNKNOWN: 1}
    assert queue.said == []


async def test_the_last_planned_next_run_goes_with_the_ack() -> None:
    queue = FakeQueue(lease("a"))

    async def handler(job: Job) -> None:
        job.run_again(delay=timedelta(hours=1))
        job.run_again(delay=timedelta(hours=2), payload=b"next")

    assert await run(queue, handler) == {Verdict.ACKED: 1}
    assert queue.said == [("run_again", "a")]
    assert queue.planned == [
        {"delay": timedelta(hours=2), "due": None, "payload": b"next", "headers": None}
    ]


async def test_a_failure_drops_the_planned_next_run() -> None:
    queue = FakeQueue(lease("a"))

    async def handler(job: Job) -> None:
        job.run_again()
        raise ValueError("no")

    assert await run(queue, handler) == {Verdict.NACKED: 1}
    assert queue.said == [("nack", "a")]


async def test_a_next_run_that_is_refused_is_a_failed_attempt() -> None:
    """An ack alone would end the series without an error."""
    queue = FakeQueue(lease("a"))
    queue.run_again_error = errors.InvalidArgument("next.delay: is negative")

    async def handler(job: Job) -> None:
        job.run_again(delay=timedelta(seconds=-1))

    assert await run(queue, handler) == {Verdict.NACKED: 1}
    (nack,) = queue.nacks
    assert nack["error"] == "the next run was refused: next.delay: is negative"


@pytest.mark.parametrize(
    "planned",
    [
        {"delay": 5},
        {"due": "tomorrow"},
        {"payload": "text"},
        {"headers": {"k": 1}},
        {"due": datetime(2030, 1, 1)},  # noqa: DTZ001 - without a time zone
        {"delay": FIVE_MINUTES, "due": datetime(2030, 1, 1, tzinfo=UTC)},
    ],
)
async def test_an_invalid_plan_of_the_next_run_fails_in_the_handler(
    planned: dict[str, Any],
) -> None:
    queue = FakeQueue(lease("a"))

    async def handler(job: Job) -> None:
        job.run_again(**planned)

    assert await run(queue, handler) == {Verdict.NACKED: 1}
    assert queue.planned == []


async def test_a_snooze_by_a_number_fails_in_the_handler() -> None:
    queue = FakeQueue(lease("a"))

    async def handler(_: Job) -> None:
        raise Snooze(cast("Any", 5))

    assert await run(queue, handler) == {Verdict.NACKED: 1}
    assert queue.nacks[0]["error"] == "TypeError: delay is 5; give a timedelta"
