"""Leases that run out under their workers: acks, nacks and extends at the moment of expiry."""

from __future__ import annotations

import asyncio

from chaos.workloads.actor import Actor, Workload, ms, refused
from chaos.workloads.working import finish, retrieve, run_again
from ddq.client import NewTask

SHORT_MS = 400


async def produce(actor: Actor) -> None:
    """One task that is due at once or soon."""
    task_id = actor.new_id()
    await actor.pace()
    with refused():
        await actor.recorder.enqueue_task(
            actor.topic(),
            NewTask(task_id.encode(), task_id, delay=ms(actor.rng.randrange(0, 300))),
            timeout_s=actor.timeout_s(),
        )


async def work(actor: Actor) -> None:
    """Holds leases until about their end, then does something with them."""
    recorder, rng = actor.recorder, actor.rng
    leases = await retrieve(actor, max_tasks=3, lease_ms=SHORT_MS)
    if actor.load.draining:
        for lease in leases:
            await finish(actor, lease)
        return
    if leases and rng.random() < 0.6:
        await asyncio.sleep(SHORT_MS / 1_000 + rng.uniform(-0.05, 0.05))
    for lease in leases:
        chance = rng.random()
        with refused():
            if chance < 0.5:
                await recorder.ack(lease, timeout_s=actor.timeout_s())
            elif chance < 0.6:
                await run_again(actor, lease)
            elif chance < 0.75:
                await recorder.extend(lease, ms(SHORT_MS), timeout_s=4.0)
                await recorder.ack(lease, timeout_s=4.0)
            elif chance < 0.83:
                await recorder.snooze(lease, ms(50), timeout_s=4.0)
            elif chance < 0.9:
                await recorder.nack(lease, delay=ms(50), timeout_s=4.0)


LEASE_RACE = Workload(
    "lease-race", "acks, nacks and extends when the lease runs out", produce, work, workers=16
)
