"""Nothing for a while, then very much that is due at the same moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone  # noqa: F401

from chaos.workloads.actor import Actor, Workload, ms, refused
from chaos.workloads.working import finish, retrieve
from ddq.client import NewTask

BURST = 40


async def produce(actor: Actor) -> None:
    """Forty tasks for one moment, a second or two ahead; some of them twice."""
    recorder, rng, topic = actor.recorder, actor.rng, actor.topic()
    due = datetime.now(UTC) + timedelta(seconds=rng.uniform(1.0, 2.5))
    tasks = []
    for _ in range(BURST):
        task_id = actor.new_id()
        tasks.append(NewTask(task_id.encode(), task_id, due=due))
    await actor.pace(BURST)
    with refused():
        await recorder.enqueue_batch(topic, tasks, timeout_s=actor.timeout_s())
    if rng.random() < 0.2:
        with refused():
            await recorder.enqueue_batch(topic, tasks, timeout_s=4.0)


async def work(actor: Actor) -> None:
    """Many at a time, acked together; many calls are repeated while others are still ready."""
    leases = await retrieve(actor, max_tasks=20, repeated_share=0.2)
    if not leases:
        return
    if actor.load.draining or actor.rng.random() < 0.8:
        with refused():
            await actor.recorder.ack_batch(leases, timeout_s=actor.timeout_s())
        return
    for lease in leases:
        if actor.rng.random() < 0.3:
            with refused():
                await actor.recorder.nack(lease, delay=ms(100), timeout_s=4.0)
        else:
            await finish(actor, lease)


BURSTS = Workload(
    "bursts", "many tasks that are due at the same moment", produce, work, producers=4
)
