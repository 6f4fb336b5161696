"""The driver of ddq, through the client and the worker that programs import."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from ddq.client import Client, NewTask
from ddq.errors import OutcomeUnknown
from ddq.worker import Job as Leased
from ddq.worker import Worker
from tests.bench.peers.driver import Deliveries, Job, Task, current, produce

TOPIC = "bench"


def _due(task: Task) -> datetime:
    return datetime.fromtimestamp(task.due_ms / 1_000, UTC)


def _is_refusal(error: Exception) -> bool:
    """Whether it certainly had no effect."""
    return not isinstance(error, OutcomeUnknown)


async def enqueue(job: Job) -> None:
    async with Client(job.address) as client:

        async def one(task: Task) -> None:
            await client.enqueue(TOPIC, task.payload, due=_due(task), timeout_s=job.timeout_s)

        async def many(tasks: list[Task]) -> None:
            new = [NewTask(task.payload, due=_due(task)) for task in tasks]
            for result in await client.enqueue_batch(TOPIC, new, timeout_s=job.timeout_s):
                if result.error is not None:
                    raise result.error

        await produce(job, one, many, _is_refusal)


async def work(job: Job) -> None:
    deliveries = Deliveries(job)

    async def handle(leased: Leased) -> None:
        deliveries.record(leased.payload)

    async with Client(job.address) as client:
        worker = Worker(client, TOPIC, handle, concurrency=job.concurrency)
        running = asyncio.create_task(worker.run())
        deliveries.ready()
        await deliveries.wait()
        worker.stop()
        await running
    deliveries.save()


if __name__ == "__main__":
    asyncio.run(work(current()) if current().do == "work" else enqueue(current()))
