"""Few ids, used again and again: replacements, conflicts, revisions, and batches with all of it."""

from __future__ import annotations

import asyncio

from chaos.workloads.actor import Actor, Workload, ms, refused
from chaos.workloads.working import retrieve, treat
from ddq.client import Enqueued, NewTask, OnConflict, RetryPolicy

IDS_COUNT = 6
"""Of each producer."""
POLICY = RetryPolicy(3, ms(50), ms(200))
"""Of some tasks, in place of their topic's."""
MODES = (
    OnConflict.FAIL,
    OnConflict.RETURN_EXISTING,
    OnConflict.REPLACE_IF_SCHEDULED,
    OnConflict.REPLACE_IF_FINISHED,
    OnConflict.REPLACE_IF_FINISHED,
)


async def produce(actor: Actor) -> None:
    """A task under an id that may be taken, by one call or in a batch; then a change of it."""
    rng = actor.rng
    topic = actor.load.topics[actor.number % len(actor.load.topics)]
    if rng.random() < 0.3:
        await actor.pace(IDS_COUNT)
        tasks = {task.id: task for task in (_task(actor) for _ in range(IDS_COUNT))}
        with refused():
            await actor.recorder.enqueue_batch(topic, [*tasks.values()], timeout_s=4.0)
        return
    task = _task(actor)
    await actor.pace(2)
    with refused():
        done = await actor.recorder.enqueue_task(topic, task, timeout_s=actor.timeout_s())
        await _change(actor, topic, done)


def _task(actor: Actor) -> NewTask:
    """An id has two contents; what happens to a task that is there varies."""
    rng = actor.rng
    task_id = f"{actor.name}-{rng.randrange(IDS_COUNT)}"
    content = rng.randrange(2)
    return NewTask(
        f"{task_id}/{content}".encode(),
        task_id,
        headers={"content": str(content)},
        delay=ms(rng.randrange(0, 1_500)),
        retry_policy=POLICY if rng.random() < 0.3 else None,
        on_conflict=rng.choice(MODES),
    )


async def _change(actor: Actor, topic: str, done: Enqueued) -> None:
    """At the revision that was reported, which the task may have left by then."""
    rng, recorder = actor.rng, actor.recorder
    await asyncio.sleep(rng.choice((0.0, 0.05, 0.5)))
    if rng.random() < 0.5:
        delay = ms(rng.randrange(0, 500))
        await recorder.reschedule(
            topic, done.id, delay=delay, expected_revision=done.revision, timeout_s=4.0
        )
        return
    await recorder.enqueue_task(
        topic,
        NewTask(
            f"{done.id}/changed".encode(),
            done.id,
            delay=ms(rng.randrange(0, 500)),
            on_conflict=OnConflict.REPLACE_IF_SCHEDULED,
            expected_revision=done.revision,
        ),
        timeout_s=4.0,
    )


async def work(actor: Actor) -> None:
    """As mixed."""
    for lease in await retrieve(actor):
        await treat(actor, lease)


FEW_IDS = Workload(
    "few-ids",
    "replacements, conflicts and revisions of few ids, in batches too",
    produce,
    work,
)
