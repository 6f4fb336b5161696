"""Pending: what a task costs while many others wait for a later time."""

from __future__ import annotations

from functools import partial

from tests.bench import driving
from tests.bench.peers.driver import Job
from tests.bench.workloads import Figures, Setting, Workload
from tests.bench.workloads.drain import drained

MEASURED_MAX = 20_000
PRELOAD_FIRST = 10**9
"""The number of the first task that waits; none of them may be delivered."""
PRELOAD_DELAY_MS = 24 * 3_600_000
PRELOAD_LIMIT_S = 1_800.0


async def measure(setting: Setting, *, pending: int) -> Figures:
    """CPU per task of its enqueue, its delivery and its ack, beside ``pending`` others."""
    count = min(setting.tasks, MEASURED_MAX)
    async with setting.system.start(setting.folder) as running:
        preload = Job(
            "enqueue", running.address, pending,
            first=PRELOAD_FIRST, batch=setting.system.bulk, delay_ms=PRELOAD_DELAY_MS,
        )  # fmt: skip
        await driving.produce(setting.driver, preload, setting.folder, PRELOAD_LIMIT_S)
        cpu = driving.Cpu(running)
        figures = await drained(setting, running, count)
        whole = cpu.per_task_us(count, 0.0)
    figures["left"] -= pending
    figures["task_us"] = sum(whole.values())
    return figures


def beside(pending: int) -> Workload:
    """The workload beside so many tasks."""
    return Workload(
        f"pending-{pending}",
        f"enqueue, delivery and ack beside {pending:,} tasks that wait: µs of server and store",
        partial(measure, pending=pending),
        "task_us",
        more_is_better=False,
        suits=lambda system: system.works and system.bulk > 0,
        alone=True,
    )
