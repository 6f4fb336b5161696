"""Purge: everything the topic held at the start, nothing that came later."""

from __future__ import annotations

import pytest

from ddq.config import Settings
from ddq.task import OnConflict, TaskState
from tests.support.conservation import assert_all_conserved
from tests.support.fixtures import OpenStoreHere
from tests.support.queue import Queue, call, error_of


async def one_in_each_state(queue: Queue) -> None:
    await queue.add_dead("dead")
    await queue.add_leased("leased")
    await queue.add("ready")
    await queue.promote()
    await queue.add("retry", delay_ms=500)
    await queue.add("scheduled", delay_ms=1_000)


HELD = ("dead", "leased", "ready", "retry", "scheduled")


async def test_tasks_in_every_state_are_purged(queue: Queue) -> None:
    await one_in_each_state(queue)
    progress = await queue.purge()
    assert (progress.count, progress.done) == (5, True)
    for task_id in HELD:
        assert await queue.state(task_id) is TaskState.PURGED
    survey = await queue.survey()
    assert survey.counts["purged"] == survey.tombstones == 5


async def test_a_finished_task_keeps_its_end(queue: Queue) -> None:
    await queue.ack(await queue.add_leased("a"))
    assert (await queue.purge()).count == 0
    assert await queue.state("a") is TaskState.SUCCEEDED


async def test_a_repeat_touches_nothing_that_came_after_the_start(queue: Queue) -> None:
    await queue.add("old")
    assert (await queue.purge("p")).count == 1
    await queue.add("new")
    again = await queue.purge("p")
    assert (again.count, again.done) == (0, True)
    assert await queue.state("new") is TaskState.SCHEDULED
    await queue.add_dead("died")
    assert (await queue.purge("p")).count == 0
    assert (await queue.purge("another")).count == 2


async def draw_cut(queue: Queue, request_id: str = "p") -> None:
    """The start of a purge whose sweep has not come to anything yet."""
    await queue.store.scripts.run(
        await queue.topic(), 0, "purge", [request_id, 0], call(request_id)
    )


async def test_no_task_hops_past_the_sweep(queue: Queue) -> None:
    lease = await queue.add_leased("leased")
    await queue.add_dead("dead")
    await queue.add("ready")
    await queue.promote()
    await queue.add("scheduled")
    await draw_cut(queue)
    for settle in (queue.ack, queue.nack, queue.release, queue.snooze, queue.extend):
        assert (await error_of(settle(lease))).reason == "LEASE_LOST"
    assert await queue.promote() == 0
    assert await queue.retrieve() == []
    queue.clock.advance(60_000)
    assert await queue.reap() == 0
    (redriven,) = await queue.redrive("dead")
    assert redriven.error is not None
    assert redriven.error.reason == "TASK_NOT_DEAD"
    for task_id in ("leased", "dead", "ready", "scheduled"):
        assert await queue.state(task_id) is TaskState.PURGED
        assert (await error_of(queue.reschedule(task_id, 1))).reason == "TASK_FINISHED"
        assert (await error_of(queue.cancel(task_id, revoke=True))).reason == "TASK_FINISHED"
    for state in (TaskState.SCHEDULED, TaskState.READY, TaskState.LEASED, TaskState.DEAD):
        assert await queue.list_ids(state) == []
    assert_all_conserved(queue.server.sync)
    assert (await queue.purge("p")).done
    assert (await queue.survey()).counts["purged"] == 4


async def test_redrive_all_leaves_cut_tasks_to_the_sweep(queue: Queue) -> None:
    await queue.add_dead("a", "b")
    await draw_cut(queue)
    assert (await queue.redrive_all()).count == 0
    assert (await queue.survey()).counts["purged"] == 2


@pytest.mark.parametrize("state", HELD)
async def test_a_cut_id_can_be_taken_by_a_replacement_that_survives(
    queue: Queue, state: str
) -> None:
    await one_in_each_state(queue)
    await draw_cut(queue)
    again = await queue.add(
        state, b"new", on_conflict=OnConflict.REPLACE_IF_FINISHED, request_id="r"
    )
    assert again.created
    assert (await queue.purge("p")).count == 4
    assert await queue.state(state) is TaskState.SCHEDULED
    counts = (await queue.survey()).counts
    assert (counts["purged"], counts["scheduled"]) == (5, 1)


async def test_a_purge_goes_on_in_bounded_steps_among_newer_tasks(
    open_store_here: OpenStoreHere,
) -> None:
    settings = Settings(operator_steps_max_count=3, purge_batch_count=2)
    queue = Queue(open_store_here(settings=settings))
    await queue.create()
    for i in range(20):
        await queue.add(f"old{i:02}", delay_ms=i)
    first = await queue.purge("p")
    assert (first.count, first.done) == (6, False)
    for i in range(20):
        await queue.add(f"new{i:02}", delay_ms=i)
    purged, done, rounds = first.count, False, 0
    while not done:
        rounds += 1
        assert rounds < 40
        progress = await queue.purge("p")
        purged, done = purged + progress.count, progress.done
    assert purged == 20
    assert await queue.list_ids(TaskState.SCHEDULED) == [f"new{i:02}" for i in range(20)]
    assert_all_conserved(queue.server.sync)


async def test_every_shard_is_cut_before_any_is_swept(open_store_here: OpenStoreHere) -> None:
    settings = Settings(operator_steps_max_count=1, purge_batch_count=2)
    queue = Queue(open_store_here(settings=settings))
    await queue.create(shards=4)
    ids = [f"t{i}" for i in range(40)]
    for task_id in ids:
        await queue.add(task_id, delay_ms=5)
    assert not (await queue.purge("p")).done
    assert {await queue.state(task_id) for task_id in ids} == {TaskState.PURGED}
    assert_all_conserved(queue.server.sync)


async def test_a_purge_of_more_shards_than_steps_ends(open_store_here: OpenStoreHere) -> None:
    settings = Settings(operator_steps_max_count=1, purge_batch_count=2)
    queue = Queue(open_store_here(settings=settings))
    await queue.create(shards=64)
    for i in range(100):
        await queue.add(f"t{i}", delay_ms=5)
    for _ in range(200):
        if (await queue.purge("p")).done:
            break
    else:
        raise AssertionError("the purge does not end")
    assert sum([(await queue.survey(i)).counts["purged"] for i in range(64)]) == 100
    assert_all_conserved(queue.server.sync)
