"""The driver of arq."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from arq import Worker, create_pool, func
from arq.connections import RedisSettings

from tests.bench.peers.driver import Deliveries, Job, Task, current, produce

FUNCTION = "bench"
CONNECTIONS = 200


def _settings(job: Job) -> Any:
    return RedisSettings(host=job.host, port=job.port, max_connections=CONNECTIONS)


async def enqueue(job: Job) -> None:
    pool = await create_pool(_settings(job))
    # A pool of this library raises where all connections are taken, instead of waiting for one.
    free = asyncio.Semaphore(CONNECTIONS)

    async def one(task: Task) -> None:
        due = datetime.fromtimestamp(task.due_ms / 1_000, UTC)
        async with free:
            await pool.enqueue_job(FUNCTION, task.payload.decode(), _defer_until=due)

    await produce(job, one)
    await pool.aclose()


async def work(job: Job) -> None:
    deliveries = Deliveries(job)

    async def handle(_: Any, payload: str) -> None:
        deliveries.record(payload)

    worker = Worker(
        [func(handle, name=FUNCTION, keep_result=0)],
        redis_settings=_settings(job),
        max_jobs=job.concurrency,
        handle_signals=False,
    )
    running = asyncio.create_task(worker.async_run())
    deliveries.ready()
    await deliveries.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await worker.close()
    deliveries.save()


if __name__ == "__main__":
    asyncio.run(work(current()) if current().do == "work" else enqueue(current()))
