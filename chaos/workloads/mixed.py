"""A bit of everything: delays, cancels at the moment of promotion, reschedules, repeats."""

from __future__ import annotations

import asyncio

from chaos.workloads.actor import Actor, Workload, ms, refused
from chaos.workloads.working import STREAM_EVERY, retrieve, stream, treat
from ddq.client import UNLIMITED_ATTEMPTS, NewTask, OnConflict, RetryPolicy

MOST_DELAY_MS = 10_000
SHORT_MS = 1_000


async def produce(actor: Actor) -> None:
    """What happens to one task."""
    recorder, rng, topic = actor.recorder, actor.rng, actor.topic()
    task_id = actor.new_id()
    kind = rng.random()
    # A request that is to meet the promotion waits for it; the others may be due much later.
    delay_ms = rng.randrange(50, 600) if kind < 0.45 else _delay_ms(actor)
    policy = RetryPolicy(UNLIMITED_ATTEMPTS) if rng.random() < 0.1 else None
    task = NewTask(task_id.encode(), task_id, delay=ms(delay_ms), retry_policy=policy)
    await actor.pace()
    with refused():
        await recorder.enqueue_task(topic, task, timeout_s=actor.timeout_s())
        actor.load.recent.append((topic, task_id))
    if kind < 0.30:
        await asyncio.sleep(max(0.0, (delay_ms + rng.uniform(-12, 12)) / 1_000))
        with refused():
            await recorder.cancel(
                topic, task_id, revoke_lease=kind < 0.04, timeout_s=actor.timeout_s()
            )
        if kind > 0.25:
            with refused():
                await recorder.cancel(topic, task_id, timeout_s=4.0)
    elif kind < 0.45:
        await asyncio.sleep(max(0.0, (delay_ms + rng.uniform(-25, 5)) / 1_000))
        with refused():
            await recorder.reschedule(
                topic, task_id, delay=ms(rng.randrange(0, 800)), timeout_s=actor.timeout_s()
            )
    elif kind < 0.55:
        if delay_ms < SHORT_MS and rng.random() < 0.5:
            # By then the task has ended, as a rule, and its tombstone keeps the id.
            await asyncio.sleep((delay_ms + SHORT_MS) / 1_000)
        with refused():
            await recorder.enqueue_task(topic, task, timeout_s=actor.timeout_s())
    elif kind < 0.60:
        await _debounce(actor, topic, task_id)
    elif kind < 0.68 and actor.load.recent:
        with refused():
            await recorder.get_task(*rng.choice(actor.load.recent), timeout_s=4.0)


async def _debounce(actor: Actor, topic: str, task_id: str) -> None:
    """A few events for one task, which may run between them."""
    for number in range(actor.rng.randrange(2, 6)):
        event = NewTask(
            f"{task_id}/{number}".encode(),
            task_id,
            delay=ms(300),
            on_conflict=OnConflict.DEBOUNCE,
            debounce_limit=ms(600),
        )
        with refused():
            await actor.recorder.enqueue_task(topic, event, timeout_s=actor.timeout_s())
        await asyncio.sleep(actor.rng.uniform(0.05, 0.35))


def _delay_ms(actor: Actor) -> int:
    """Most are due soon: what is due after the faults sees none of them."""
    if actor.rng.random() < 0.5 or actor.load.healed:
        return actor.rng.randrange(0, 1_000)
    return actor.rng.randrange(0, MOST_DELAY_MS)


async def work(actor: Actor) -> None:
    """Some leases, each treated somehow; by a stream or a Retrieve."""
    if actor.number % STREAM_EVERY == 0:
        await stream(actor)
        return
    for lease in await retrieve(actor):
        await treat(actor, lease)


MIXED = Workload("mixed", "delays, cancels, reschedules, repeats, workers that die", produce, work)
