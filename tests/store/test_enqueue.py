"""Ids, conflicts, replacements and due times."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ddq.task import OnConflict, TaskState
from tests.support.queue import Queue, call, error_of, errors, new_task

SCHEDULED, FINISHED = OnConflict.REPLACE_IF_SCHEDULED, OnConflict.REPLACE_IF_FINISHED


async def test_a_task_is_due_when_it_says_and_not_a_millisecond_sooner(queue: Queue) -> None:
    await queue.add("delay", delay_ms=500)
    await queue.add("at", due_ms=queue.clock.store_ms + 500)
    past = await queue.add("past", due_ms=queue.clock.store_ms - 500)
    assert past.due_ms == queue.clock.store_ms, "it cannot have been due before it was there"
    assert await queue.promote() == 1
    queue.clock.advance(499)
    assert await queue.promote() == 0
    queue.clock.advance(1)
    assert await queue.promote() == 2
    assert [lease.task.id for lease in await queue.retrieve()] == ["past", "at", "delay"]


async def test_the_same_content_is_the_same_task_in_every_state(queue: Queue) -> None:
    first = await queue.add("a")
    for state, step in (
        (TaskState.READY, queue.promote),
        (TaskState.LEASED, lambda: queue.retrieve(1)),
    ):
        await step()
        again = await queue.add("a")
        assert (again.created, again.state) == (False, state)
        assert again.incarnation == first.incarnation
    await queue.cancel("a", revoke=True)
    assert (await queue.add("a")).state is TaskState.CANCELLED
    assert (await error_of(queue.add("a", b"other"))).reason == "TASK_ID_CONFLICT"


async def test_return_existing_describes_what_is_there(queue: Queue) -> None:
    first = await queue.add("a", b"one", delay_ms=9)
    there = await queue.add("a", b"two", on_conflict=OnConflict.RETURN_EXISTING)
    assert there == first._replace(created=False)
    assert (await queue.get("a")).payload == b"one"


async def test_replace_scheduled_cancels_the_old_incarnation(queue: Queue) -> None:
    old = await queue.add("a", b"old", delay_ms=9_000)
    new = await queue.add("a", b"new", on_conflict=SCHEDULED, request_id="r")
    assert new.created
    assert new.incarnation > old.incarnation
    assert new.revision > old.revision
    counts = (await queue.survey()).counts
    assert (counts["enqueued"], counts["cancelled"], counts["scheduled"]) == (2, 1, 1)
    await queue.promote()
    (lease,) = await queue.retrieve()
    assert lease.task.payload == b"new"


@pytest.mark.parametrize("expected_offset", [0, 1])
async def test_replace_finished_takes_the_id_of_a_finished_task(
    queue: Queue, expected_offset: int
) -> None:
    done = await queue.ack(await queue.add_leased("a"))
    options = {"on_conflict": FINISHED, "request_id": "r"}
    expected = done.revision + expected_offset
    if expected_offset:
        error = await error_of(queue.add("a", b"new", expected_revision=expected, **options))
        assert error.reason == "REVISION_MISMATCH"
        assert await queue.state("a") is TaskState.SUCCEEDED
    else:
        assert (await queue.add("a", b"new", expected_revision=expected, **options)).created
        assert await queue.state("a") is TaskState.SCHEDULED


async def test_a_replaced_dead_task_counts_as_purged(queue: Queue) -> None:
    await queue.add_dead("a")
    assert (await queue.add("a", b"new", on_conflict=FINISHED, request_id="r")).created
    counts = (await queue.survey()).counts
    assert (counts["dead"], counts["purged"], counts["scheduled"]) == (0, 1, 1)


async def test_a_repeated_replacement_does_not_replace_again(queue: Queue) -> None:
    await queue.add("a", b"old", delay_ms=9_000)
    options = {"delay_ms": 9_000, "on_conflict": SCHEDULED}
    first = await queue.add("a", b"new", request_id="one", **options)
    assert await queue.add("a", b"new", request_id="one", **options) == first
    # Another client replaces it; the repeat of the first must not undo that.
    third = await queue.add("a", b"third", request_id="two", **options)
    assert await queue.add("a", b"new", request_id="one", **options) == first
    task = await queue.get("a")
    assert (task.payload, task.incarnation) == (b"third", third.incarnation)
    assert (await queue.survey()).counts["enqueued"] == 3


async def test_a_repeated_replacement_of_a_finished_task_leaves_the_next_end_alone(
    queue: Queue,
) -> None:
    await queue.ack(await queue.add_leased("a", payload=b"old"))
    first = await queue.add("a", b"new", on_conflict=FINISHED, request_id="r")
    await queue.ack(await queue.lease("a"))
    assert await queue.add("a", b"new", on_conflict=FINISHED, request_id="r") == first
    assert await queue.state("a") is TaskState.SUCCEEDED


async def test_a_repeated_cancel_never_reaches_the_next_incarnation(queue: Queue) -> None:
    await queue.add("a", b"old")
    cancelled = await queue.cancel("a", request_id="c")
    await queue.add("a", b"new", on_conflict=FINISHED, request_id="r")
    again = await queue.cancel("a", request_id="c")
    assert (again.already, again.incarnation) == (True, cancelled.incarnation)
    assert await queue.state("a") is TaskState.SCHEDULED
    assert not (await queue.cancel("a", request_id="another")).already


async def test_request_ids_and_ids_with_colons_are_not_mixed_up(queue: Queue) -> None:
    await queue.add("b:c", delay_ms=5_000)
    await queue.add("c", delay_ms=5_000)
    await queue.reschedule("b:c", 6_000, request_id="a")
    moved = await queue.reschedule("c", 7_000, request_id="a:b")
    assert moved.at_ms == queue.clock.store_ms + 7_000
    assert (await queue.get("c")).due_ms == queue.clock.store_ms + 7_000


async def test_reschedule_moves_both_ways_and_a_ready_task_is_promoted_again(
    queue: Queue,
) -> None:
    await queue.add("a", delay_ms=5_000)
    await queue.reschedule("a", 1_000, request_id="sooner")
    queue.clock.advance(1_000)
    assert await queue.promote() == 1
    await queue.reschedule("a", 1_000, request_id="later")
    assert await queue.retrieve() == []
    queue.clock.advance(1_000)
    assert await queue.promote() == 1
    assert (await queue.get("a")).promotion == 2
    past = await queue.reschedule("a", 5, request_id="past", absolute=True)
    assert past.at_ms == queue.clock.store_ms


async def test_a_repeated_reschedule_does_not_undo_a_later_one(queue: Queue) -> None:
    await queue.add("a", delay_ms=5_000)
    first = await queue.reschedule("a", 1_000, request_id="one")
    second = await queue.reschedule("a", 8_000, request_id="two")
    assert await queue.reschedule("a", 1_000, request_id="one") == first
    assert (await queue.get("a")).due_ms == second.at_ms


async def test_max_tasks_bounds_what_is_held_and_frees_with_the_end(queue: Queue) -> None:
    topic = await queue.topic()
    settings = replace(topic.settings, max_tasks=2)
    await queue.store.topics.update(topic, replace(topic, settings=settings), call())
    outcomes = await queue.store.jobs.enqueue(
        queue.name, [new_task("a"), new_task("b"), new_task("c")], call()
    )
    assert errors(outcomes) == ["OK", "OK", "TOPIC_FULL"]
    assert not (await queue.add("a")).created, "a repeat needs no room"
    assert (await queue.add("a", b"n", on_conflict=SCHEDULED, request_id="r")).created
    await queue.promote()
    first, second = await queue.retrieve()
    await queue.nack(first, dead=True)
    assert (await error_of(queue.add("c"))).reason == "TOPIC_FULL", "a dead task is held"
    await queue.ack(second)
    assert (await queue.add("c")).created
    assert (await error_of(queue.add("d"))).reason == "TOPIC_FULL"


async def set_max_bytes(queue: Queue, max_bytes: int) -> None:
    topic = await queue.topic()
    settings = replace(topic.settings, max_bytes=max_bytes)
    await queue.store.topics.update(topic, replace(topic, settings=settings), call())


async def test_max_bytes_bounds_what_is_held_and_frees_with_the_end(queue: Queue) -> None:
    await set_max_bytes(queue, 10)
    tasks = [new_task("a", b"12345"), new_task("b", b"123456"), new_task("c", b"12345")]
    outcomes = await queue.store.jobs.enqueue(queue.name, tasks, call())
    assert errors(outcomes) == ["OK", "TOPIC_FULL", "OK"]
    assert not (await queue.add("a", b"12345")).created, "a repeat needs no room"
    for content, made in ((b"1234567890", False), (b"1234", True), (b"12345", True)):
        request = f"r{len(content)}"
        adding = queue.add("a", content, on_conflict=SCHEDULED, request_id=request)
        assert (await adding).created if made else await error_of(adding), content
    await queue.promote()
    first, second = await queue.retrieve()
    await queue.nack(first, dead=True)
    assert (await error_of(queue.add("d", b"1"))).reason == "TOPIC_FULL", "a dead task is held"
    await queue.ack(second)
    assert (await queue.add("d", b"12345")).created
    assert (await error_of(queue.add("e", b"1"))).reason == "TOPIC_FULL"


async def test_tasks_from_before_the_bound_do_not_count_towards_max_bytes(queue: Queue) -> None:
    await queue.add("before", b"1234567890")
    await set_max_bytes(queue, 5)
    await queue.add("a", b"12345")
    assert (await error_of(queue.add("b", b"1"))).reason == "TOPIC_FULL"
    await queue.cancel("before")
    assert (await error_of(queue.add("b", b"1"))).reason == "TOPIC_FULL", "its end frees nothing"
    await queue.cancel("a")
    assert (await queue.add("b", b"12345")).created
    await set_max_bytes(queue, 0)
    assert (await queue.add("c", b"12345")).created
    await set_max_bytes(queue, 5)
    assert (await queue.add("d", b"12345")).created, "those of before do not count again"


async def test_a_batch_holds_tasks_of_every_shard_in_the_order_of_the_request(
    queue: Queue,
) -> None:
    wide = Queue(queue.controlled_store, "wide")
    await wide.create(shards=8)
    tasks = [new_task(f"t{i}", f"{i}".encode()) for i in range(50)]
    assert [done.id for done in await wide.enqueue(*tasks)] == [task.id for task in tasks]
    held = [(await wide.survey(index)).counts["scheduled"] for index in range(8)]
    assert sum(held) == 50
    assert min(held) > 0
    assert [(await wide.get(f"t{i}")).payload for i in (0, 49)] == [b"0", b"49"]


async def test_the_bytes_of_a_payload_and_of_headers_come_back_as_they_were(
    queue: Queue,
) -> None:
    payload = bytes(range(256)) * 3
    headers = {"": "empty key", "ключ": "значение", "nul": "a\x00b"}
    await queue.add("é\U0001f600", payload, headers=headers)
    lease = await queue.lease("é\U0001f600")
    assert (lease.task.payload, lease.task.headers) == (payload, headers)


async def test_a_revision_grows_with_every_transition(queue: Queue) -> None:
    seen = [(await queue.add("a")).revision]
    await queue.promote()
    seen.append((await queue.get("a")).revision)
    (lease,) = await queue.retrieve()
    seen.append(lease.task.revision)
    seen.append((await queue.extend(lease)).revision)
    seen.append((await queue.nack(lease, delay_ms=0)).revision)
    seen.append((await queue.reschedule("a", 0)).revision)
    seen.append((await queue.ack(await queue.lease("a"))).revision)
    seen.append((await queue.add("a", b"n", on_conflict=FINISHED, request_id="x")).revision)
    assert seen == sorted(set(seen))
