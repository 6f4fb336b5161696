"""Callers that wait for half a minute, so that what fails for them fails for all.

They ask only for what the earlier release knows too: an upgrade runs under them.
"""

from __future__ import annotations

import asyncio
import secrets

from chaos.workloads.actor import Actor, Workload, ms, refused
from ddq.client import Lease, NewTask

TIMEOUT_S = 30.0
# Longer than its holder waits: an ack that is refused for its expiry would not be a failure.
LEASE_MS = 45_000
WAIT_MS = 500
_MAX_TASKS = 4
_MOST_DELAY_MS = 2_000


async def produce(actor: Actor) -> None:
    """One task: enqueued, and some cancelled, moved, looked at or enqueued again."""
    recorder, rng, topic = actor.recorder, actor.rng, actor.topic()
    task_id, kind = actor.new_id(), rng.random()
    delay_ms = rng.randrange(0, _MOST_DELAY_MS)
    task = NewTask(task_id.encode(), task_id, delay=ms(delay_ms))
    await actor.pace()
    with refused():
        await recorder.enqueue_task(topic, task, timeout_s=TIMEOUT_S)
    if kind < 0.25:
        await asyncio.sleep(rng.uniform(0, delay_ms) / 1_000)
        with refused():
            await recorder.cancel(topic, task_id, timeout_s=TIMEOUT_S)
    elif kind < 0.35:
        delay = ms(rng.randrange(0, _MOST_DELAY_MS))
        with refused():
            await recorder.reschedule(topic, task_id, delay=delay, timeout_s=TIMEOUT_S)
    elif kind < 0.45:
        with refused():
            await recorder.enqueue_task(topic, task, timeout_s=TIMEOUT_S)
    elif kind < 0.55:
        with refused():
            await recorder.get_task(topic, task_id, timeout_s=TIMEOUT_S)


async def work(actor: Actor) -> None:
    """Some leases, each ended."""
    leases: list[Lease] = []
    with refused():
        leases = await actor.recorder.retrieve(
            actor.load.topics,
            max_tasks=_MAX_TASKS,
            lease=ms(LEASE_MS),
            wait=ms(WAIT_MS),
            request_id=secrets.token_hex(8),
            timeout_s=TIMEOUT_S,
        )
    for lease in leases:
        await _treat(actor, lease)


async def _treat(actor: Actor, lease: Lease) -> None:
    recorder = actor.recorder
    chance = 1.0 if actor.load.draining else actor.rng.random()
    with refused():
        if chance < 0.08:
            await recorder.nack(lease, error="on purpose", timeout_s=TIMEOUT_S)
            return
        if chance < 0.14:
            await recorder.release(lease, timeout_s=TIMEOUT_S)
            return
        if chance < 0.24:
            await recorder.extend(lease, ms(LEASE_MS), timeout_s=TIMEOUT_S)
        await recorder.ack(lease, timeout_s=TIMEOUT_S)


LONG_TIMEOUTS = Workload(
    "long-timeouts",
    "every kind of request that the earlier release knows, each with 30 s to succeed",
    produce,
    work,
)
