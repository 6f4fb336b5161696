"""Redriving and deleting dead tasks; a repeat never has a second effect (G13)."""

from __future__ import annotations

from ddq.config import Settings
from ddq.task import TaskState
from tests.support.fixtures import OpenStoreHere
from tests.support.queue import Queue, error_of, errors


async def test_redrive_gives_a_new_run_due_now(queue: Queue) -> None:
    await queue.add_dead("a")
    assert errors(await queue.redrive("a")) == ["OK"]
    task = await queue.get("a")
    assert (task.state, task.run, task.attempt) == (TaskState.SCHEDULED, 2, 0)
    assert task.due_ms == queue.clock.store_ms
    lease = await queue.lease("a")
    assert (lease.task.run, lease.task.attempt, lease.task.promotion) == (2, 1, 2)


async def test_redrive_one_repeated_after_the_task_died_again_does_nothing(queue: Queue) -> None:
    await queue.add_dead("a")
    await queue.redrive("a", request_id="r")
    await queue.nack(await queue.lease("a"), dead=True)
    assert errors(await queue.redrive("a", request_id="r")) == ["OK"]
    assert await queue.state("a") is TaskState.DEAD
    assert errors(await queue.redrive("a", request_id="another")) == ["OK"]
    assert await queue.state("a") is TaskState.SCHEDULED


async def test_redrive_all_repeated_after_a_task_died_again_does_nothing(queue: Queue) -> None:
    await queue.add_dead("a", "b")
    progress = await queue.redrive_all("r")
    assert (progress.count, progress.done) == (2, True)
    await queue.promote()
    for lease in await queue.retrieve():
        await queue.nack(lease, dead=True)
    await queue.add_dead("later")
    assert (await queue.redrive_all("r")).count == 0
    assert (await queue.redrive_all("another")).count == 3


async def test_redrive_all_goes_on_in_bounded_steps(open_store_here: OpenStoreHere) -> None:
    settings = Settings(operator_steps_max_count=2, promote_batch_count=3)
    queue = Queue(open_store_here(settings=settings))
    await queue.create()
    await queue.add_dead(*(f"t{i}" for i in range(8)))
    seen = []
    for _ in range(2):
        progress = await queue.redrive_all("r")
        seen.append((progress.count, progress.done))
    assert seen == [(6, False), (2, True)]
    assert len(await queue.list_ids(TaskState.SCHEDULED)) == 8


async def test_redriven_tasks_accept_no_old_token(queue: Queue) -> None:
    lease = await queue.add_leased("a")
    await queue.nack(lease, dead=True)
    await queue.redrive("a")
    assert (await error_of(queue.nack(lease))).reason == "LEASE_LOST"
    assert (await error_of(queue.ack(lease))).reason == "LEASE_LOST"


async def test_a_deleted_dead_task_is_purged_and_remembered(queue: Queue) -> None:
    await queue.add_dead("a")
    await queue.delete_dead("a", (await queue.get("a")).revision)
    task = await queue.get("a")
    assert (task.state, task.payload) == (TaskState.PURGED, None)
    assert errors(await queue.redrive("a")) == ["TASK_NOT_DEAD"]
    assert (await error_of(queue.cancel("a"))).reason == "TASK_FINISHED"
    assert (await queue.survey()).counts["purged"] == 1


async def test_a_mixed_batch_of_ids_has_one_answer_each(queue: Queue) -> None:
    await queue.add_dead("dead")
    await queue.add("fresh")
    outcomes = await queue.redrive("dead", "unknown", "fresh")
    assert errors(outcomes) == ["OK", "TASK_NOT_FOUND", "TASK_NOT_DEAD"]


async def test_a_repeated_redrive_reports_a_task_that_died_later_as_at_first(
    queue: Queue,
) -> None:
    await queue.add_dead("a")
    lease = await queue.add_leased("b")
    first = errors(await queue.redrive("a", "b", request_id="r"))
    assert first == ["OK", "TASK_NOT_DEAD"]
    await queue.nack(lease, dead=True)
    assert errors(await queue.redrive("a", "b", request_id="r")) == first
    assert await queue.state("b") is TaskState.DEAD


async def test_redrive_all_takes_what_died_before_and_in_the_same_millisecond(
    open_store_here: OpenStoreHere,
) -> None:
    settings = Settings(operator_steps_max_count=1, promote_batch_count=1)
    queue = Queue(open_store_here(settings=settings))
    await queue.create()
    await queue.add_dead("b", "c", "d")
    assert not (await queue.redrive_all("r")).done
    # Sorts before those that are still to come, and is newer than all of them.
    await queue.add_dead("a")
    for _ in range(5):
        if (await queue.redrive_all("r")).done:
            break
    else:
        raise AssertionError("the redrive does not end")
    assert await queue.list_ids(TaskState.DEAD) == ["a"]


async def test_redrive_all_of_more_shards_than_steps_ends(open_store_here: OpenStoreHere) -> None:
    queue = Queue(open_store_here(settings=Settings(operator_steps_max_count=1)))
    await queue.create(shards=8)
    progress = await queue.redrive_all("r")
    assert (progress.count, progress.done) == (0, True)
