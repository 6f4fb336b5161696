"""A topic of several shards: each call by id finds the shard that keeps the task."""

from __future__ import annotations

from ddq.store.keys import shard_of
from ddq.task import TaskState
from tests.support.queue import Queue, call, error_of

SHARDS_COUNT = 4
ON_THE_LAST = next(
    f"t{number}" for number in range(100) if shard_of(f"t{number}", SHARDS_COUNT) == 3
)


async def test_a_life_on_the_last_shard(queue: Queue) -> None:
    queue = Queue(queue.controlled_store, "sharded")
    await queue.create(shards=SHARDS_COUNT)
    await queue.add(ON_THE_LAST, delay_ms=500)
    await queue.reschedule(ON_THE_LAST, 100)
    assert (await queue.get(ON_THE_LAST)).due_ms == queue.clock.store_ms + 100
    queue.clock.advance(100)
    assert await queue.promote(3) == 1
    (lease,) = await queue.retrieve(shard=3)
    await queue.extend(lease)
    await queue.nack(lease, dead=True)
    await queue.redrive(ON_THE_LAST)
    await queue.promote(3)
    (lease,) = await queue.retrieve(shard=3)
    await queue.release(lease)
    (lease,) = await queue.retrieve(shard=3)
    await queue.nack(lease, dead=True)
    await queue.delete_dead(ON_THE_LAST)
    assert await queue.state(ON_THE_LAST) is TaskState.PURGED
    assert (await error_of(queue.cancel(ON_THE_LAST))).reason == "TASK_FINISHED"
    assert (await queue.survey(3)).counts["purged"] == 1


async def test_a_task_that_no_shard_has_is_not_found(queue: Queue) -> None:
    queue = Queue(queue.controlled_store, "sharded")
    await queue.create(shards=SHARDS_COUNT)
    assert (await error_of(queue.reschedule(ON_THE_LAST, 0))).reason == "TASK_NOT_FOUND"
    (outcome,) = await queue.redrive(ON_THE_LAST)
    assert outcome.error is not None
    assert (await error_of(queue.delete_dead(ON_THE_LAST))).reason == "TASK_NOT_FOUND"
    survey = await queue.store.scheduler_api.survey(await queue.topic(), queue.shard, call())
    assert survey.counts["enqueued"] == 0
