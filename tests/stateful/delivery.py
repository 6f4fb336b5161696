"""A simulation without faults in which workers wait for tasks: what is ready is delivered (G14)."""

from __future__ import annotations

import asyncio
from random import Random

from chaos.checker.bounds import Bounds
from chaos.checker.promises import g14_prompt_delivery
from chaos.checker.view import MS, RunView
from chaos.history.journal import Journal
from chaos.history.notes import RunNote, TopicSettings
from tests.stateful.clients import TOPIC, Client
from tests.stateful.quiet import QuietSimulation, quiet
from tests.stateful.simulation import START_MS

LATE_MAX_MS = 3
"""Commands take no time; the rest is rounding."""
WORKERS_COUNT = 3
LEASE_MS = 100
WAIT_MS = 400
END_S = 2.0
BOUNDS = Bounds(clock_error_ms=1, lateness_ms=LATE_MAX_MS, recovery_ms=0, takeover_ms=0)


def late_deliveries(socket: str, seed: int) -> tuple[list[str], int]:
    """Producers, and workers that wait most of the time, in an order that the seed draws.

    Returns:
        What G14 finds, and how many Retrieves waited and were given a task then.
    """
    random = Random(seed)
    with quiet(socket, seed) as it:
        it.simulation.start_schedulers()
        for number in range(WORKERS_COUNT):
            it.simulation.spawn(_work(it, f"worker{number}", random), f"worker{number}")
        it.simulation.spawn(_produce(it, random), "producer")
        it.run_until(END_S)
        topic = TopicSettings(lease_ms=LEASE_MS, durability="QUORUM", journal=True)
        history = it.exchanges.history(RunNote(START_MS, {TOPIC: topic}, "simulation"))
        found = g14_prompt_delivery.check(RunView(history, Journal(it.journal(), []), None, BOUNDS))
        waited = [
            op
            for op in history.ops
            if op.op == "retrieve" and op.ok and op.reply.leases and op.end_ns - op.begin_ns > MS
        ]
        return [anomaly.summary for anomaly in found.anomalies], len(waited)


async def _produce(it: QuietSimulation, random: Random) -> None:
    client = Client(it.simulation, it.exchanges, "producer")
    for number in range(8):
        await asyncio.sleep(random.choice((0.0, 0.0, 0.02, 0.15)))
        await client.enqueue(f"x{number}", random.choice((0, 0, 10, 150)))


async def _work(it: QuietSimulation, name: str, random: Random) -> None:
    """What is handed back or has failed becomes ready again."""
    client = Client(it.simulation, it.exchanges, name)
    while True:
        for lease in await client.retrieve(LEASE_MS, WAIT_MS):
            await client.settle(lease, random.choice(("ack", "ack", "nack", "release", "snooze")))
