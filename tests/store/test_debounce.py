"""DEBOUNCE: enqueue, or take the place of what waits, never pushed back beyond the limit."""

from __future__ import annotations

from typing import Any

import pytest

from ddq.store.job_values import Enqueued
from ddq.task import OnConflict, TaskState
from tests.support.conservation import assert_all_conserved
from tests.support.queue import Queue, call, error_of


async def debounce(queue: Queue, request_id: str, **options: Any) -> Enqueued:
    chosen: dict[str, Any] = {"delay_ms": 1_000, "debounce_limit_ms": 2_500, **options}
    payload = chosen.pop("payload", request_id.encode())
    return await queue.add(
        "a", payload, on_conflict=OnConflict.DEBOUNCE, request_id=request_id, **chosen
    )


async def test_each_event_pushes_the_task_back_until_the_limit(queue: Queue) -> None:
    start_ms = queue.clock.store_ms
    due = []
    for number in range(5):
        due.append((await debounce(queue, f"r{number}")).due_ms - start_ms)
        queue.clock.advance(700)
    # 700 ms apart, each due 1 s later, but none later than 2.5 s after the first.
    assert due == [1_000, 1_700, 2_400, 2_500, 2_800]
    task = await queue.get("a")
    assert task.payload == b"r4"
    assert_all_conserved(queue.server.sync)


async def test_the_fifth_event_was_too_late_and_is_due_at_once(queue: Queue) -> None:
    await debounce(queue, "r1")
    queue.clock.advance(2_600)
    await queue.promote()
    second = await debounce(queue, "r2")
    assert (second.due_ms, second.state) == (queue.clock.store_ms, TaskState.SCHEDULED)
    lease = await queue.lease("a")
    assert (lease.task.payload, lease.task.promotion) == (b"r2", 1)


async def test_the_limit_of_an_event_that_comes_first_bounds_its_own_delay(queue: Queue) -> None:
    first = await debounce(queue, "r1", delay_ms=9_000)
    assert first.due_ms == queue.clock.store_ms + 2_500


async def test_an_event_may_bring_the_task_forward(queue: Queue) -> None:
    await debounce(queue, "r1", delay_ms=2_000)
    assert (await debounce(queue, "r2", delay_ms=10)).due_ms == queue.clock.store_ms + 10


async def test_a_repeat_replaces_nothing_and_returns_the_first_due_time(queue: Queue) -> None:
    await debounce(queue, "r1")
    second = await debounce(queue, "r2")
    third = await debounce(queue, "r3")
    queue.clock.advance(100)
    assert await debounce(queue, "r2") == second
    task = await queue.get("a")
    assert (task.payload, task.incarnation) == (b"r3", third.incarnation)
    counts = (await queue.survey()).counts
    assert (counts["enqueued"], counts["cancelled"], counts["scheduled"]) == (3, 2, 1)


async def test_a_task_that_a_worker_holds_is_left_to_it(queue: Queue) -> None:
    lease = await queue.add_leased("a")
    assert (await error_of(debounce(queue, "r1"))).reason == "TASK_LEASED"
    await queue.ack(lease)


@pytest.mark.parametrize("end", ["acked", "cancelled", "dead"])
async def test_a_task_that_has_ended_is_followed_by_one_with_a_limit_of_its_own(
    queue: Queue, end: str
) -> None:
    if end == "dead":
        await queue.add_dead("a")
    else:
        lease = await queue.add_leased("a")
        await (queue.ack(lease) if end == "acked" else queue.cancel("a", revoke=True))
    queue.clock.advance(60_000)
    created = await debounce(queue, "r1")
    assert (created.created, created.due_ms) == (True, queue.clock.store_ms + 1_000)
    assert_all_conserved(queue.server.sync)


@pytest.mark.parametrize("how", ["failed", "snoozed", "redriven"])
async def test_the_limit_restarts_for_a_task_that_has_run(queue: Queue, how: str) -> None:
    """Counted from its first enqueue, each event would cut the backoff short."""
    lease = await queue.add_leased("a")
    queue.clock.advance(60_000)
    if how == "failed":
        await queue.nack(lease, delay_ms=5_000)
    elif how == "snoozed":
        await queue.snooze(lease, 5_000)
    else:
        await queue.nack(lease, dead=True)
        await queue.redrive("a")
    assert (await debounce(queue, "r1")).due_ms == queue.clock.store_ms + 1_000


async def test_a_task_that_was_handed_back_unstarted_keeps_its_first_time(queue: Queue) -> None:
    start_ms = queue.clock.store_ms
    lease = await queue.add_leased("a")
    await queue.release(lease)
    queue.clock.advance(2_000)
    assert (await debounce(queue, "r1")).due_ms == start_ms + 2_500
    assert (await queue.get("a")).created_ms == start_ms
    assert (await error_of(queue.ack(lease))).reason == "LEASE_LOST"


async def test_a_purged_task_is_no_beginning(queue: Queue) -> None:
    await debounce(queue, "r1")
    queue.clock.advance(2_000)
    # The purge has drawn its line, and swept nothing yet.
    await queue.store.scripts.run(await queue.topic(), 0, "purge", ["p", 0], call("p"))
    assert (await debounce(queue, "r2")).due_ms == queue.clock.store_ms + 1_000
    assert_all_conserved(queue.server.sync)
