"""The driver of ChasquiMQ, as a producer; its worker needs commands that Valkey does not have."""

from __future__ import annotations

import asyncio
import time

from chasquimq import Producer

from tests.bench.peers.driver import Task, current, produce

CONNECTIONS = 8


async def main() -> None:
    job = current()
    producer = Producer(f"redis://{job.address}/0", "bench", pool_size=CONNECTIONS)

    async def one(task: Task) -> None:
        await producer.add_at(task.due_ms, task.payload)

    async def many(tasks: list[Task]) -> None:
        # One delay for the whole call.
        delay_ms = max(0, round(tasks[0].due_ms - time.time() * 1_000))
        await producer.add_in_bulk(delay_ms, [task.payload for task in tasks])

    await produce(job, one, many)


if __name__ == "__main__":
    asyncio.run(main())
