"""What a lease token is good for, and until when (G7, G8, G9)."""

from __future__ import annotations

import pytest

from ddq.store.job_values import Leased, Settlement
from ddq.task import TaskState
from tests.support.queue import Queue, call, error_of, errors, new_task


async def expire(queue: Queue) -> None:
    queue.clock.advance(10_000)
    assert await queue.reap() == 1


async def test_ack_after_expiry_and_before_reaping_is_accepted(queue: Queue) -> None:
    lease = await queue.add_leased("a")
    queue.clock.advance(60_000)
    await queue.ack(lease)
    assert await queue.state("a") is TaskState.SUCCEEDED
    assert await queue.reap() == 0


@pytest.mark.parametrize("promoted", [False, True])
async def test_ack_after_reaping_is_accepted_until_the_next_lease(
    queue: Queue, promoted: bool
) -> None:
    lease = await queue.add_leased("a")
    await expire(queue)
    if promoted:
        queue.clock.advance(60_000)
        assert await queue.promote() == 1
    await queue.ack(lease)
    assert await queue.state("a") is TaskState.SUCCEEDED
    queue.clock.advance(600_000)
    await queue.promote()
    assert await queue.retrieve() == []


async def test_the_next_lease_supersedes_the_token(queue: Queue) -> None:
    old = await queue.add_leased("a")
    await expire(queue)
    queue.clock.advance(60_000)
    new = await queue.lease("a")
    assert new.task.attempt == 2
    for settle in (queue.ack, queue.nack, queue.release, queue.snooze, queue.extend):
        assert (await error_of(settle(old))).reason == "LEASE_LOST"
    assert (await queue.get("a")).revision == new.task.revision
    await queue.ack(new)
    assert (await error_of(queue.ack(old))).reason == "LEASE_LOST"


@pytest.mark.parametrize("settle", ["nack", "release", "snooze", "extend"])
async def test_only_an_ack_is_accepted_after_reaping(queue: Queue, settle: str) -> None:
    lease = await queue.add_leased("a")
    await expire(queue)
    assert (await error_of(getattr(queue, settle)(lease))).reason == "LEASE_LOST"
    await queue.ack(lease)


async def test_the_last_attempt_expires_into_death_and_its_ack_is_refused(queue: Queue) -> None:
    lease = await queue.add_leased("a", max_attempts=1)
    await expire(queue)
    assert await queue.state("a") is TaskState.DEAD
    assert (await error_of(queue.ack(lease))).reason == "LEASE_LOST"


async def test_a_lease_of_an_expired_but_unreaped_task_can_be_extended(queue: Queue) -> None:
    lease = await queue.add_leased("a")
    queue.clock.advance(11_000)
    assert (await queue.extend(lease, 5_000)).at_ms == queue.clock.store_ms + 5_000
    assert await queue.reap() == 0


async def test_extend_never_shortens(queue: Queue) -> None:
    lease = await queue.add_leased("a")
    assert (await queue.extend(lease, 1_000)).at_ms == lease.expiry_ms
    assert (await queue.extend(lease, 20_000)).at_ms == queue.clock.store_ms + 20_000


async def test_extend_without_a_duration_takes_the_topics(queue: Queue) -> None:
    lease = await queue.add_leased("a")
    assert (await queue.extend(lease, None)).at_ms == queue.clock.store_ms + 30_000


async def test_a_repeated_settlement_gets_its_old_verdict(queue: Queue) -> None:
    acked = await queue.add_leased("a")
    first = await queue.ack(acked)
    assert await queue.ack(acked) == first
    for settle in (queue.nack, queue.release, queue.snooze, queue.extend):
        assert (await error_of(settle(acked))).reason == "LEASE_LOST"

    nacked = await queue.add_leased("b")
    retried = await queue.nack(nacked)
    queue.clock.advance(100)
    assert await queue.nack(nacked) == retried
    assert (await error_of(queue.ack(nacked))).reason == "LEASE_LOST"

    dead_lettered = await queue.add_leased("c")
    dead = await queue.nack(dead_lettered, dead=True)
    assert dead.state is TaskState.DEAD
    assert await queue.nack(dead_lettered) == dead

    released = await queue.add_leased("d")
    ready = await queue.release(released)
    assert await queue.release(released) == ready
    assert (await error_of(queue.nack(released))).reason == "LEASE_LOST"


async def test_a_repeated_nack_gets_the_old_verdict_while_the_task_continues(
    queue: Queue,
) -> None:
    lease = await queue.add_leased("a")
    first = await queue.nack(lease, delay_ms=0)
    await queue.promote()
    again = await queue.nack(lease, delay_ms=50_000)
    assert (again.state, again.at_ms) == (TaskState.SCHEDULED, first.at_ms)
    await queue.lease("a")
    assert (await error_of(queue.nack(lease))).reason == "LEASE_LOST"


async def test_release_returns_the_attempt_and_keeps_the_place(queue: Queue) -> None:
    await queue.add("a", max_attempts=1)
    await queue.add("b", delay_ms=1)
    queue.clock.advance(1)
    await queue.promote()
    (lease,) = await queue.retrieve(1)
    assert (lease.task.id, lease.task.attempt, lease.task.promotion) == ("a", 1, 1)
    await queue.release(lease)
    task = await queue.get("a")
    assert (task.state, task.attempt, task.promotion) == (TaskState.READY, 0, 1)
    (again, _) = await queue.retrieve(2)
    assert (again.task.id, again.task.attempt) == ("a", 1)


async def test_a_revoked_lease_settles_nothing(queue: Queue) -> None:
    lease = await queue.add_leased("a")
    assert not (await queue.cancel("a", revoke=True)).already
    for settle in (queue.ack, queue.nack, queue.release, queue.snooze, queue.extend):
        assert (await error_of(settle(lease))).reason == "LEASE_LOST"
    assert await queue.state("a") is TaskState.CANCELLED


async def test_a_rescheduled_task_is_not_settled_by_the_token_of_a_lapsed_lease(
    queue: Queue,
) -> None:
    lease = await queue.add_leased("a")
    await expire(queue)
    await queue.reschedule("a", 60_000)
    assert (await error_of(queue.ack(lease))).reason == "LEASE_LOST"


async def test_the_empty_token_settles_nothing(queue: Queue) -> None:
    await queue.add("a")
    task = await queue.get("a")
    forged = Leased(task, b"", 0, receipt=(await queue.survey()).receipt)
    for settle in (queue.ack, queue.nack, queue.release, queue.snooze, queue.extend):
        assert (await error_of(settle(forged))).reason == "LEASE_LOST"
    assert await queue.state("a") is TaskState.SCHEDULED


async def test_each_lease_has_a_token_of_its_own_and_a_batch_settles_each_by_itself(
    queue: Queue,
) -> None:
    await queue.enqueue(*(new_task(task_id) for task_id in "abc"))
    await queue.promote()
    a, b, c = await queue.retrieve()
    assert len({a.token, b.token, c.token}) == 3
    items = [Settlement("a", a.token), Settlement("b", c.token), Settlement("c", c.token)]
    assert errors(await queue.store.jobs.ack(queue.name, items, call())) == [
        "OK",
        "LEASE_LOST",
        "OK",
    ]
    assert await queue.state("b") is TaskState.LEASED


@pytest.mark.parametrize("settle", ["nack", "release", "snooze"])
async def test_after_a_cancel_an_old_verdict_is_no_longer_true(queue: Queue, settle: str) -> None:
    lease = await queue.add_leased("a")
    await getattr(queue, settle)(lease)
    await queue.cancel("a")
    assert (await error_of(getattr(queue, settle)(lease))).reason == "LEASE_LOST"
