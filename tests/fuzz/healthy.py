"""A client beside the attack, which does as it should: what was acknowledged to it has to be true.

It runs in a process of its own, prints a line when it works, stops when its stdin closes, and
prints what it found as one line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sys
import time
from datetime import timedelta

from ddq.client import Client
from ddq.errors import DdqError, OutcomeUnknown

TOPIC = "healthy"
EVERY_S = 0.05
DELAY_S = 1.0
TIMEOUT_S = 30.0
DRAIN_S = 60.0


def payload_of(task_id: str) -> bytes:
    """The bytes of a task, which its id tells."""
    return hashlib.sha256(task_id.encode()).digest() * 8


class Healthy:
    """Enqueues, retrieves and acknowledges; and counts."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.acknowledged: set[str] = set()
        self.unknown: set[str] = set()
        self.delivered: set[str] = set()
        self.wrong: list[str] = []
        self.errors: dict[str, int] = {}
        self.call_ms: list[float] = []
        self.late_ms: list[float] = []

    def _count(self, error: DdqError) -> None:
        self.errors[error.reason] = self.errors.get(error.reason, 0) + 1

    async def produce(self, stop: asyncio.Event) -> None:
        """One task every EVERY_S, until it is to stop."""
        number = 0
        while not stop.is_set():
            number += 1
            task_id = f"h-{number}"
            began_s = time.monotonic()
            try:
                await self._client.enqueue(
                    TOPIC, payload_of(task_id), task_id=task_id,
                    delay=timedelta(seconds=DELAY_S), timeout_s=TIMEOUT_S,
                )  # fmt: skip
                self.acknowledged.add(task_id)
            except OutcomeUnknown as error:
                self.unknown.add(task_id)
                self._count(error)
            except DdqError as error:
                self._count(error)
            self.call_ms.append((time.monotonic() - began_s) * 1_000)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), EVERY_S)

    async def consume(self) -> None:
        """Takes and acknowledges what is due, until it is cancelled."""
        while True:
            try:
                leases = await self._client.retrieve(
                    TOPIC, max_tasks=100, wait=timedelta(seconds=5)
                )
            except DdqError as error:
                self._count(error)
                continue
            for lease in leases:
                if lease.task.payload != payload_of(lease.id):
                    self.wrong.append(lease.id)
                if lease.due_time is not None:
                    self.late_ms.append((time.time() - lease.due_time.timestamp()) * 1_000)
                self.delivered.add(lease.id)
            try:
                for result in await self._client.ack_batch(leases) if leases else []:
                    if result.error is not None:
                        self._count(result.error)
            except DdqError as error:
                self._count(error)


def percentile(values: list[float], share: float) -> float:
    """The value that this share does not exceed; 0 of none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


async def main(address: str) -> None:
    """Works until stdin closes."""
    stop = asyncio.Event()
    async with Client(address) as client:
        await client.create_topic(TOPIC)
        healthy = Healthy(client)
        print("works", flush=True)
        consuming = asyncio.create_task(healthy.consume())
        producing = asyncio.create_task(healthy.produce(stop))
        await asyncio.to_thread(sys.stdin.read)
        stop.set()
        await producing
        end_s = time.monotonic() + DRAIN_S
        # Another process delivers them.
        while healthy.acknowledged - healthy.delivered and time.monotonic() < end_s:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        consuming.cancel()
        await asyncio.wait({consuming})
    print(
        json.dumps(
            {
                "acknowledged": len(healthy.acknowledged),
                "missing": sorted(healthy.acknowledged - healthy.delivered)[:10],
                "foreign": sorted(healthy.delivered - healthy.acknowledged - healthy.unknown)[:10],
                "wrong": healthy.wrong[:10],
                "errors": healthy.errors,
                "call_ms": [round(percentile(healthy.call_ms, each), 1) for each in (0.5, 0.99, 1)],
                "late_ms": [round(percentile(healthy.late_ms, each), 1) for each in (0.5, 0.99, 1)],
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
