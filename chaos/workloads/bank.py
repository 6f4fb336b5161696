"""Nothing appears, nothing vanishes: tasks go round through every state, and counts are read."""

from __future__ import annotations

from chaos.workloads.actor import Actor, Workload, ms, refused
from chaos.workloads.working import retrieve, treat
from ddq.client import NewTask


async def produce(actor: Actor) -> None:
    """A batch of tasks; then the books are looked at, and dead ones brought back or removed."""
    recorder, rng, topic = actor.recorder, actor.rng, actor.topic()
    tasks = []
    for _ in range(rng.randrange(1, 8)):
        task_id = actor.new_id()
        tasks.append(NewTask(task_id.encode(), task_id, delay=ms(rng.randrange(0, 4_000))))
    await actor.pace(len(tasks) + 1)
    with refused():
        await recorder.enqueue_batch(topic, tasks, timeout_s=actor.timeout_s())
    with refused():
        await recorder.stats(topic, timeout_s=4.0)
    chance = rng.random()
    with refused():
        if chance < 0.1:
            await recorder.redrive(topic, timeout_s=4.0)
        elif chance < 0.3:
            await recorder.cancel_batch(topic, [task.id or "" for task in tasks], timeout_s=4.0)


async def work(actor: Actor) -> None:
    """As mixed."""
    for lease in await retrieve(actor):
        await treat(actor, lease)


BANK = Workload(
    "bank", "batches, redrives and counts: nothing appears and nothing vanishes", produce, work
)
