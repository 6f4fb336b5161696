"""The rest of the client library: producers with the blocking client, and the Worker class."""

from __future__ import annotations

import asyncio

from chaos.workloads.actor import Actor, Workload, ms, refused
from chaos.workloads.working import LEASE_MS
from ddq.client import NewTask
from ddq.worker import DeadLetter, Job, NextRun, Retry, Snooze, Worker

CONCURRENCY = 12
"""Enough that no backlog forms behind long handlers: a lease that lapses is leased again soon."""
ROUND_S = (3.0, 6.0)
"""How long a Worker runs; then it hands back what it has, and another one takes its place."""


async def produce(actor: Actor) -> None:
    """A few tasks by a SyncClient, of which one is cancelled, moved or looked at."""
    recorder, rng, topic = actor.recorder, actor.rng, actor.topic()
    tasks = []
    for _ in range(rng.randrange(1, 5)):
        task_id = actor.new_id()
        tasks.append(NewTask(task_id.encode(), task_id, delay=ms(rng.randrange(0, 2_000))))
    await actor.pace(len(tasks) + 1)
    with refused():
        await recorder.enqueue_batch(topic, tasks, timeout_s=actor.timeout_s())
    task_id, kind = tasks[0].id or "", rng.random()
    with refused():
        if kind < 0.3:
            await recorder.cancel(topic, task_id, timeout_s=actor.timeout_s())
        elif kind < 0.5:
            await recorder.reschedule(topic, task_id, delay=ms(500), timeout_s=actor.timeout_s())
        elif kind < 0.6:
            await recorder.get_task(topic, task_id, timeout_s=4.0)


async def work(actor: Actor) -> None:
    """One Worker, for some seconds; no longer than until the workers of the run are to stop."""

    async def handle(job: Job) -> NextRun | None:
        return await _handle(actor, job)

    worker = Worker(
        actor.workers_client(),
        actor.load.topics,
        handle,
        concurrency=CONCURRENCY,
        lease=ms(LEASE_MS),
        grace=ms(LEASE_MS),
        handle_signals=False,
    )
    running = asyncio.create_task(worker.run(), name=f"{actor.name} worker")
    try:
        async with asyncio.timeout(actor.rng.uniform(*ROUND_S)):
            await actor.load.stopped.wait()
    except TimeoutError:
        pass
    finally:
        worker.stop()
        await running


async def _handle(actor: Actor, job: Job) -> NextRun | None:
    """Most runs succeed; some outlast their lease, which the worker extends."""
    chance = actor.rng.random()
    if actor.load.draining or chance < 0.72:
        await asyncio.sleep(actor.rng.uniform(0, 0.02))
    elif chance < 0.80:
        await asyncio.sleep(1.5 * LEASE_MS / 1_000)
    elif chance < 0.86:
        raise ValueError(f"attempt {job.attempt} fails on purpose")
    elif chance < 0.90:
        raise Retry("in a moment", delay=ms(actor.rng.randrange(20, 500)))
    elif chance < 0.94:
        raise Snooze(ms(actor.rng.randrange(20, 500)))
    elif chance < 0.97:
        return NextRun(ms(actor.rng.randrange(0, 500)))
    else:
        raise DeadLetter("for good")
    return None


LIBRARIES = Workload(
    "libraries",
    "producers with the blocking client, and Workers with handlers",
    produce,
    work,
    blocking=True,
    producers=6,
    workers=4,
)
