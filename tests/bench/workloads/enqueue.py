"""Enqueue: tasks that are due in an hour, by single calls or by calls of 100 tasks."""

from __future__ import annotations

import asyncio
from functools import partial

from tests.bench import driving
from tests.bench.peers.driver import Job
from tests.bench.workloads import Figures, Setting, Workload

SETTLE_S = 0.5
"""After the last call, before memory is read: the store frees its buffers meanwhile."""


async def measure(
    setting: Setting, *, callers: int, bulk: bool = False, payload_bytes: int = 256
) -> Figures:
    """Calls per second and CPU of each layer, and the memory of the tasks that are pending then."""
    batch = setting.system.bulk if bulk else 0
    small = payload_bytes < 256
    count = min(setting.sizes.memory_tasks, setting.tasks) if small else setting.tasks
    async with setting.system.start(setting.folder) as running:
        before = await running.memory()
        cpu = driving.Cpu(running)
        job = Job(
            "enqueue", running.address, count,
            callers=callers, batch=batch, payload_bytes=payload_bytes,
        )  # fmt: skip
        answer = await driving.produce(setting.driver, job, setting.folder)
        used = cpu.per_task_us(count, answer["cpu_s"])
        await asyncio.sleep(SETTLE_S)
        pending_bytes = (await running.memory() - before) / count
    rate = count / answer["seconds"]
    setting.pace[setting.system.name, batch] = rate
    return {"tasks_per_s": rate, "pending_bytes": pending_bytes, **used}


SINGLE_50 = Workload(
    "single-50",
    "enqueue by single calls, 50 callers in one process",
    partial(measure, callers=50),
    "tasks_per_s",
)
SINGLE_1000 = Workload(
    "single-1000",
    "enqueue by single calls, 1,000 callers in one process",
    partial(measure, callers=1_000),
    "tasks_per_s",
)
BULK = Workload(
    "bulk-100",
    "enqueue by calls of 100 tasks, 50 callers in one process",
    partial(measure, callers=50, bulk=True),
    "tasks_per_s",
    suits=lambda system: system.bulk > 0,
)
MEMORY = Workload(
    "memory-32",
    "bytes per pending task with a payload of 32 bytes",
    partial(measure, callers=50, bulk=True, payload_bytes=32),
    "pending_bytes",
    more_is_better=False,
)
