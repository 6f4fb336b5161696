"""The driver of Celery. Its worker runs handlers in threads, so that it is one process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from celery import Celery
from celery.signals import worker_ready

from tests.bench.peers.driver import Deliveries, Job, Task, current, produce

FUNCTION = "bench"
CALLERS_MAX = 50
"""Calls block: each concurrent caller is a thread."""


def application(job: Job) -> Any:
    app = Celery("bench", broker=f"redis://{job.address}/0")
    app.conf.update(
        task_ignore_result=True,
        broker_pool_limit=CALLERS_MAX,
        broker_connection_retry_on_startup=True,
        worker_enable_remote_control=False,
        worker_redirect_stdouts=False,
    )
    return app


async def enqueue(job: Job) -> None:
    app = application(job)
    threads = ThreadPoolExecutor(CALLERS_MAX)
    loop = asyncio.get_running_loop()

    def call(task: Task) -> None:
        due = datetime.fromtimestamp(task.due_ms / 1_000, UTC)
        app.send_task(FUNCTION, (task.payload.decode(),), eta=due)

    async def one(task: Task) -> None:
        await loop.run_in_executor(threads, call, task)

    await produce(job, one)
    threads.shutdown()


def work(job: Job) -> None:
    app = application(job)
    deliveries = Deliveries(job)
    app.task(deliveries.record, name=FUNCTION)

    def wait() -> None:
        deliveries.wait_blocking()
        os.kill(os.getpid(), signal.SIGTERM)

    def ready(**_: Any) -> None:
        deliveries.ready()
        threading.Thread(target=wait, daemon=True).start()

    worker_ready.connect(ready, weak=False)
    flags = ["--pool", "threads", "--concurrency", str(job.concurrency), "--loglevel", "ERROR"]
    with contextlib.suppress(SystemExit):
        app.worker_main(
            ["worker", *flags, "--without-gossip", "--without-mingle", "--without-heartbeat"]
        )
    deliveries.save()


if __name__ == "__main__":
    if current().do == "work":
        work(current())
    else:
        asyncio.run(enqueue(current()))
