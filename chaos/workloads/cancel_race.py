"""Most tasks are cancelled about when they become due: both outcomes of the race, many times."""

from __future__ import annotations

import asyncio

from chaos.workloads.actor import Actor, Workload, ms, refused
from chaos.workloads.working import finish, retrieve
from ddq.client import NewTask

LEFT_SHARE = 0.25
"""Tasks that are not cancelled: a task that is cancelled when it is due is never late."""


async def produce(actor: Actor) -> None:
    """One task, and as a rule a caller who wants it gone."""
    recorder, rng, topic = actor.recorder, actor.rng, actor.topic()
    task_id = actor.new_id()
    delay_ms = rng.randrange(100, 1_500)
    await actor.pace(2)
    with refused():
        await recorder.enqueue_task(
            topic, NewTask(task_id.encode(), task_id, delay=ms(delay_ms)), timeout_s=4.0
        )
    if rng.random() < LEFT_SHARE:
        return
    await asyncio.sleep(max(0.0, (delay_ms + rng.uniform(-15, 15)) / 1_000))
    with refused():
        await recorder.cancel(
            topic, task_id, revoke_lease=rng.random() < 0.2, timeout_s=actor.timeout_s()
        )


async def work(actor: Actor) -> None:
    """Takes what is left and holds it for a moment, so that cancels meet leases too."""
    for lease in await retrieve(actor, max_tasks=2):
        await asyncio.sleep(0 if actor.load.draining else actor.rng.random() * 0.05)
        await finish(actor, lease)


CANCEL_RACE = Workload(
    "cancel-race",
    "most tasks are cancelled at the moment of their promotion",
    produce,
    work,
    producers=24,
)
