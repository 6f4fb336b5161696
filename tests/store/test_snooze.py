"""Snooze: a leased task is put off, and its attempt does not count (G8, G10, G13)."""

from __future__ import annotations

from ddq.config import LIMITS
from ddq.task import TaskState
from tests.support.conservation import assert_all_conserved
from tests.support.queue import Queue, error_of, new_task


async def test_a_snoozed_task_is_due_after_the_delay_with_its_attempt_given_back(
    queue: Queue,
) -> None:
    lease = await queue.add_leased("a", payload=b"kept", max_attempts=1)
    snoozed = await queue.snooze(lease, 5_000)
    assert (snoozed.state, snoozed.at_ms) == (TaskState.SCHEDULED, queue.clock.store_ms + 5_000)
    task = await queue.get("a")
    assert (task.state, task.attempt, task.snoozes, task.payload) == (
        TaskState.SCHEDULED, 0, 1, b"kept",
    )  # fmt: skip
    queue.clock.advance(4_999)
    assert await queue.promote() == 0
    queue.clock.advance(1)
    again = await queue.lease("a")
    assert (again.task.attempt, again.task.promotion) == (1, 2)
    await queue.ack(again)
    assert_all_conserved(queue.server.sync)


async def test_a_task_with_one_attempt_left_is_snoozed_many_times_and_still_has_it(
    queue: Queue,
) -> None:
    await queue.add("a", max_attempts=1)
    for number in range(20):
        lease = await queue.lease("a")
        assert (lease.task.attempt, lease.task.snoozes) == (1, number)
        await queue.snooze(lease, 1)
        queue.clock.advance(1)
    dead = await queue.nack(await queue.lease("a"))
    assert dead.state is TaskState.DEAD


async def test_a_failure_counts_between_snoozes(queue: Queue) -> None:
    lease = await queue.add_leased("a", max_attempts=2)
    await queue.nack(lease, delay_ms=0)
    await queue.snooze(await queue.lease("a"), 1)
    queue.clock.advance(1)
    lease = await queue.lease("a")
    assert lease.task.attempt == 2
    assert (await queue.nack(lease)).state is TaskState.DEAD


async def test_a_repeated_snooze_gets_its_verdict_and_moves_nothing(queue: Queue) -> None:
    lease = await queue.add_leased("a")
    first = await queue.snooze(lease, 1_000)
    queue.clock.advance(100)
    assert await queue.snooze(lease, 1_000) == first
    assert (await queue.get("a")).snoozes == 1
    queue.clock.advance(900)
    await queue.promote()
    again = await queue.snooze(lease, 1_000)
    assert (again.state, again.at_ms) == (first.state, first.at_ms), "while the task goes on"
    await queue.lease("a")
    assert (await error_of(queue.snooze(lease, 1_000))).reason == "LEASE_LOST"


async def test_no_other_verdict_is_taken_after_a_snooze(queue: Queue) -> None:
    lease = await queue.add_leased("a")
    await queue.snooze(lease)
    for settle in (queue.ack, queue.nack, queue.release, queue.extend):
        assert (await error_of(settle(lease))).reason == "LEASE_LOST"


async def test_the_snoozes_of_a_run_are_bounded_and_the_lease_holds_beyond(queue: Queue) -> None:
    assert queue.store.jobs.snoozes_max_count == LIMITS.snoozes_max_count
    queue.store.jobs.snoozes_max_count = 2
    await queue.add("a")
    for _ in range(2):
        await queue.snooze(await queue.lease("a"), 1)
        queue.clock.advance(1)
    lease = await queue.lease("a")
    error = await error_of(queue.snooze(lease, 1))
    assert error.reason == "SNOOZE_LIMIT"
    assert "nack" in error.message
    await queue.nack(lease, dead=True)
    assert (await queue.get("a")).snoozes == 2
    await queue.redrive("a")
    assert (await queue.get("a")).snoozes == 0, "a new run"
    await queue.snooze(await queue.lease("a"), 1)


async def test_a_lease_that_expired_is_snoozed_until_it_is_taken_back(queue: Queue) -> None:
    lease = await queue.add_leased("a")
    queue.clock.advance(60_000)
    await queue.snooze(lease)
    lease = await queue.add_leased("b")
    queue.clock.advance(10_000)
    assert await queue.reap() == 1
    assert (await error_of(queue.snooze(lease))).reason == "LEASE_LOST"


async def test_a_task_that_was_never_snoozed_has_the_record_of_0_2(queue: Queue) -> None:
    await queue.enqueue(new_task("a"), new_task("b"))
    await queue.promote()
    a, b = sorted(await queue.retrieve(), key=lambda lease: lease.task.id)
    await queue.nack(a, error="e")
    await queue.snooze(b)
    records: dict[bytes, bytes] = queue.server.read("HGETALL", queue.key("states"))
    assert records[b"a"].endswith(b"\x00\x01e"), "ends with the last error"
    assert records[b"b"].endswith(b"\x00\x00" + b"\x00\x00\x00\x01"), "and then the count"


async def test_a_count_that_an_older_process_dropped_begins_again(queue: Queue) -> None:
    await queue.snooze(await queue.add_leased("a"), 1)
    record = queue.server.sync.hget(queue.key("states"), "a")
    assert isinstance(record, bytes)
    queue.server.sync.hset(queue.key("states"), "a", record[:-4])
    queue.clock.advance(1)
    lease = await queue.lease("a")
    assert lease.task.snoozes == 0
    await queue.snooze(lease)
    assert_all_conserved(queue.server.sync)
