"""What workers do with a lease, for better or worse."""

from __future__ import annotations

import asyncio
import secrets

from chaos.workloads.actor import Actor, ms, refused
from ddq.client import Lease

LEASE_MS = 2_000
WAITS_MS = (500, 1_500)
"""How long Retrieves wait: the long ones show that a wake-up arrives, since no other one asks
instead. All are shorter than a lease, so that a repeat within a call finds its lease."""
REPEATED_SHARE = 0.03
STREAM_S = (2.0, 6.0)
STREAM_EVERY = 4
"""One of so many workers gets its tasks by a stream."""


async def retrieve(
    actor: Actor,
    max_tasks: int = 4,
    lease_ms: int = LEASE_MS,
    repeated_share: float = REPEATED_SHARE,
) -> list[Lease]:
    """Some leases; now and then the request is repeated, as after a lost reply."""
    request_id = secrets.token_hex(8)
    leases: list[Lease] = []
    with refused():
        leases = await actor.recorder.retrieve(
            actor.load.topics,
            max_tasks=max_tasks,
            lease=ms(lease_ms),
            wait=ms(actor.rng.choice(WAITS_MS)),
            request_id=request_id,
            timeout_s=4.0,
        )
        if leases and actor.rng.random() < repeated_share and not actor.load.draining:
            with refused():
                await actor.recorder.retrieve(
                    actor.load.topics,
                    max_tasks=max_tasks,
                    lease=ms(lease_ms),
                    request_id=request_id,
                    timeout_s=4.0,
                )
    return leases


async def stream(actor: Actor, max_tasks: int = 4, lease_ms: int = LEASE_MS) -> None:
    """A stream for some seconds: credit comes back as leases are treated, and the rest is released.

    While a lease is treated others arrive, as many as there is credit for, and some run out.
    """
    until_s = asyncio.get_running_loop().time() + actor.rng.uniform(*STREAM_S)
    topics = actor.load.topics
    async with actor.streams.open(topics, max_tasks=max_tasks, lease=ms(lease_ms)) as leases:
        leases.add_credit(max_tasks)
        while (left_s := until_s - asyncio.get_running_loop().time()) > 0:
            for lease in await leases.read(left_s):
                await treat(actor, lease)
                leases.add_credit(1)


async def finish(actor: Actor, lease: Lease) -> None:
    """Acks."""
    with refused():
        await actor.recorder.ack(lease, timeout_s=actor.timeout_s())


async def run_again(actor: Actor, lease: Lease) -> None:
    """Plans the next run, with the payload of this one or another; sometimes asked for twice."""
    payload = f"{lease.id}/again".encode() if actor.rng.random() < 0.5 else None
    delay = ms(actor.rng.randrange(0, 500))
    with refused():
        await actor.recorder.run_again(
            lease, delay=delay, payload=payload, timeout_s=actor.timeout_s()
        )
    if actor.rng.random() < 0.3:
        with refused():
            await actor.recorder.run_again(lease, delay=delay, payload=payload, timeout_s=4.0)


async def treat(actor: Actor, lease: Lease) -> None:
    """Most are acked; others fail, are put off, given back, extended, left, acked twice or late."""
    recorder, chance = actor.recorder, actor.rng.random()
    if actor.load.draining or chance < 0.70:
        await finish(actor, lease)
        return
    with refused():
        if chance < 0.76:
            return  # its worker has died
        if chance < 0.82:
            delay = ms(actor.rng.randrange(20, 500)) if chance < 0.79 else None
            await recorder.nack(lease, error="on purpose", delay=delay, timeout_s=4.0)
        elif chance < 0.84:
            await recorder.release(lease, timeout_s=4.0)
        elif chance < 0.86:
            await recorder.snooze(lease, ms(actor.rng.randrange(20, 500)), timeout_s=4.0)
        elif chance < 0.90:
            await recorder.extend(lease, ms(2 * LEASE_MS), timeout_s=4.0)
            await recorder.ack(lease, timeout_s=4.0)
        elif chance < 0.93:
            # About when it runs out: accepted unless another worker has it by then.
            await asyncio.sleep(LEASE_MS / 1_000 + actor.rng.uniform(-0.1, 0.3))
            await recorder.ack(lease, timeout_s=4.0)
        elif chance < 0.95:
            await recorder.ack(lease, timeout_s=actor.timeout_s())
            await recorder.ack(lease, timeout_s=4.0)
        elif chance < 0.97:
            await run_again(actor, lease)
        else:
            await recorder.nack(lease, error="for good", dead_letter=True, timeout_s=4.0)
