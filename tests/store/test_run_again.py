"""RunAgain: an ack and the next run of the same id, both or neither (G3, G9, G13)."""

from __future__ import annotations

import pytest

from ddq.task import OnConflict, TaskState
from tests.support.conservation import assert_all_conserved
from tests.support.queue import Queue, error_of
from tests.support.store import StoreServer


async def test_the_next_run_has_the_content_and_policy_of_this_one(queue: Queue) -> None:
    lease = await queue.add_leased("a", payload=b"bytes", headers={"k": "v"}, max_attempts=2)
    made = await queue.run_again(lease, 5_000)
    assert made.due_ms == queue.clock.store_ms + 5_000
    task = await queue.get("a")
    assert (task.state, task.incarnation, task.payload, task.headers) == (
        TaskState.SCHEDULED, made.incarnation, b"bytes", {"k": "v"},
    )  # fmt: skip
    assert (task.attempt, task.promotion, task.run, task.due_ms) == (0, 0, 1, made.due_ms)
    assert task.retry_policy is not None
    assert task.retry_policy.max_attempts == 2
    assert task.created_ms == queue.clock.store_ms
    counts = (await queue.survey()).counts
    assert (counts["enqueued"], counts["succeeded"], counts["scheduled"]) == (2, 1, 1)
    queue.clock.advance(4_999)
    assert await queue.promote() == 0
    queue.clock.advance(1)
    await queue.ack(await queue.lease("a"))
    assert_all_conserved(queue.server.sync)


async def test_the_next_run_may_have_another_content(queue: Queue) -> None:
    lease = await queue.add_leased("a", payload=b"one", headers={"k": "v"}, max_attempts=2)
    await queue.run_again(lease, payload=b"another and longer", headers={"x": "y"})
    task = await queue.get("a")
    assert (task.payload, task.headers) == (b"another and longer", {"x": "y"})
    assert task.retry_policy is not None
    assert task.retry_policy.max_attempts == 2
    # The producer's own repeat finds other content, and makes nothing.
    assert (await error_of(queue.add("a", b"one", headers={"k": "v"}))).reason == (
        "TASK_ID_CONFLICT"
    )


async def test_the_producers_repeat_finds_the_next_run_of_its_content(queue: Queue) -> None:
    await queue.run_again(await queue.add_leased("a"))
    assert not (await queue.add("a")).created
    assert (await queue.survey()).counts["enqueued"] == 2


async def test_a_repeat_makes_no_second_run_whatever_became_of_the_first(queue: Queue) -> None:
    lease = await queue.add_leased("a")
    made = await queue.run_again(lease, 0)
    assert await queue.run_again(lease, 0) == made, "while it waits"
    following = await queue.lease("a")
    assert await queue.run_again(lease, 0) == made, "while it is leased"
    await queue.ack(following)
    assert await queue.run_again(lease, 0) == made, "when it has ended"
    options = {"request_id": "r", "on_conflict": OnConflict.REPLACE_IF_FINISHED}
    await queue.add("a", b"new", **options)
    assert await queue.run_again(lease, 0) == made, "when another has the id"
    counts = (await queue.survey()).counts
    assert (counts["enqueued"], counts["succeeded"], counts["scheduled"]) == (3, 2, 1)
    assert_all_conserved(queue.server.sync)


async def test_each_token_gives_one_verdict(queue: Queue) -> None:
    lease = await queue.add_leased("a")
    await queue.run_again(lease)
    for settle in (queue.ack, queue.nack, queue.release, queue.snooze, queue.extend):
        assert (await error_of(settle(lease))).reason == "LEASE_LOST"
    other = await queue.add_leased("b")
    await queue.ack(other)
    assert (await error_of(queue.run_again(other))).reason == "LEASE_LOST"
    assert await queue.state("b") is TaskState.SUCCEEDED


async def test_a_lapsed_token_is_good_until_the_next_lease(queue: Queue) -> None:
    lease = await queue.add_leased("a")
    queue.clock.advance(10_000)
    assert await queue.reap() == 1
    await queue.run_again(lease)
    assert await queue.state("a") is TaskState.SCHEDULED
    late = await queue.add_leased("b")
    queue.clock.advance(10_000)
    assert await queue.reap() == 1
    queue.clock.advance(60_000)
    await queue.promote()
    await queue.retrieve()
    assert (await error_of(queue.run_again(late))).reason == "LEASE_LOST"


@pytest.mark.parametrize("end", ["cancelled", "purged", "dead"])
async def test_a_task_that_was_ended_meanwhile_does_not_run_again(queue: Queue, end: str) -> None:
    lease = await queue.add_leased("a", max_attempts=1)
    if end == "cancelled":
        await queue.cancel("a", revoke=True)
    elif end == "purged":
        await queue.purge()
    else:
        queue.clock.advance(10_000)
        await queue.reap()
    assert (await error_of(queue.run_again(lease))).reason == "LEASE_LOST"
    assert (await queue.survey()).counts["enqueued"] == 1


async def test_a_cancel_reaches_the_next_run_and_not_the_one_that_has_finished(
    queue: Queue,
) -> None:
    lease = await queue.add_leased("a")
    assert (await error_of(queue.cancel("a", request_id="c"))).reason == "TASK_LEASED"
    made = await queue.run_again(lease)
    cancelled = await queue.cancel("a", request_id="d")
    assert cancelled.incarnation == made.incarnation
    assert await queue.run_again(lease) == made
    assert await queue.state("a") is TaskState.CANCELLED


async def test_a_full_topic_and_a_full_store_take_the_next_run_in_place_of_this_one(
    queue: Queue, store_server: StoreServer
) -> None:
    topic = Queue(queue.controlled_store, "full")
    await topic.create(max_tasks=1)
    lease = await topic.add_leased("a")
    assert (await error_of(topic.add("b"))).reason == "TOPIC_FULL"
    await topic.run_again(lease, 0)
    lease = await topic.lease("a")
    store_server.sync.config_set("maxmemory", 1)
    try:
        assert (await error_of(queue.add("b"))).reason == "STORE_FULL"
        await topic.run_again(lease, 0)
    finally:
        store_server.sync.config_set("maxmemory", 0)
    assert_all_conserved(store_server.sync)


async def test_a_record_that_cannot_be_read_is_named_and_nothing_is_made(queue: Queue) -> None:
    lease = await queue.add_leased("a")
    field = f"next:32:{lease.token.hex()}:a"
    queue.server.sync.hset(queue.key("requests"), field, b"junk")
    assert (await error_of(queue.run_again(lease))).reason == "STORE_MALFORMED"
    assert await queue.state("a") is TaskState.LEASED
    queue.server.sync.hdel(queue.key("requests"), field)
    await queue.run_again(lease)
    assert queue.server.sync.hexists(queue.key("requests"), field)


async def test_a_run_planned_by_a_token_is_forgotten_when_no_repeat_can_come(queue: Queue) -> None:
    lease = await queue.add_leased("a")
    await queue.run_again(lease, 60_000)
    queue.clock.advance(3_000)
    await queue.collect()
    assert (await error_of(queue.run_again(lease))).reason == "LEASE_LOST"
    assert (await queue.survey()).counts["enqueued"] == 2
