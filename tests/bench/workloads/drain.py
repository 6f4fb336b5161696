"""Drain: all tasks are due at one moment; one worker process handles and acknowledges them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict

from tests.bench import driving
from tests.bench.peers.driver import Job
from tests.bench.processes import BenchError
from tests.bench.systems import Running
from tests.bench.workloads import Figures, Setting, Workload

FIRST_PACE_PER_S = 300.0
"""Assumed of a system whose enqueue was not measured in this run."""
LIMIT_S = 120.0


async def measure(setting: Setting) -> Figures:
    """Tasks per second from the due time to the last delivery, on an instance of its own."""
    async with setting.system.start(setting.folder) as running:
        return await drained(setting, running, setting.tasks)


async def drained(setting: Setting, running: Running, count: int) -> Figures:
    """The same on an instance that runs; ``left`` counts what was pending before, too."""
    system = setting.system
    pace = setting.pace.get((system.name, system.bulk), FIRST_PACE_PER_S)
    # A whole second: a peer that knows only those has no disadvantage.
    due_s = int(time.time() + 1.5 * count / pace + 2 + system.lead_s)
    load = Job("enqueue", running.address, count, batch=system.bulk, due_ms=due_s * 1_000)
    await driving.produce(setting.driver, load, setting.folder)
    spare_s = due_s - time.time()
    if spare_s < system.lead_s / 2:
        raise BenchError(f"the tasks were enqueued {spare_s:.1f} s before they were due")
    await asyncio.sleep(max(0.0, spare_s - system.lead_s))
    work = Job(
        "work", running.address, count,
        concurrency=system.concurrency,
        limit_s=system.lead_s + LIMIT_S,
        out=str(setting.folder / "deliveries"),
    )  # fmt: skip
    async with driving.consuming(setting.driver, work, setting.folder) as consumer:
        cpu = driving.Cpu(running)
        deliveries = await consumer.deliveries()
        used = cpu.per_task_us(count, consumer.cpu_s)
    left = float(await running.left()) if running.left else 0.0
    if not deliveries:
        raise BenchError("nothing was delivered")
    last_s = max(each.at_ms for each in deliveries) / 1_000 - due_s
    return {
        "tasks_per_s": len(deliveries) / max(last_s, 1e-3),
        "first_ms": min(each.late_ms for each in deliveries),
        "last_ms": last_s * 1_000,
        "left": left,
        **asdict(driving.exactness(deliveries, count)),
        **used,
    }


DRAIN = Workload(
    "drain",
    "drain with ack, one worker process",
    measure,
    "tasks_per_s",
    suits=lambda system: system.works,
)
