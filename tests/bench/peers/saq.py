"""The driver of saq. Its times are whole seconds, rounded up: no task is requested early."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from saq import Job as Queued
from saq import Queue, Worker

from tests.bench.peers.driver import Deliveries, Job, Task, current, produce

FUNCTION = "bench"


async def connected(job: Job) -> Any:
    queue = Queue.from_url(f"redis://{job.address}/0", name="bench")
    await queue.connect()
    return queue


async def enqueue(job: Job) -> None:
    queue = await connected(job)

    async def one(task: Task) -> None:
        due_s = math.ceil(task.due_ms / 1_000)
        await queue.enqueue(
            Queued(FUNCTION, kwargs={"payload": task.payload.decode()}, scheduled=due_s, ttl=-1)
        )

    await produce(job, one)
    await queue.disconnect()


async def work(job: Job) -> None:
    deliveries = Deliveries(job)

    async def handle(_: Any, *, payload: str) -> None:
        deliveries.record(payload)

    queue = await connected(job)
    worker = Worker(queue, [(FUNCTION, handle)], concurrency=job.concurrency)
    running = asyncio.create_task(worker.start())
    deliveries.ready()
    await deliveries.wait()
    await worker.stop()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    deliveries.save()


if __name__ == "__main__":
    asyncio.run(work(current()) if current().do == "work" else enqueue(current()))
