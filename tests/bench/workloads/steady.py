"""Steady: so many tasks per second with random delays; how late each reaches its handler."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

from tests.bench import driving
from tests.bench.peers.driver import Job
from tests.bench.processes import BenchError
from tests.bench.workloads import Figures, Setting, Workload

SHARES = {"p50_ms": 0.5, "p99_ms": 0.99, "p99_9_ms": 0.999, "max_ms": 1.0}
LIMIT_S = 60.0


async def measure(setting: Setting, *, rate: float) -> Figures:
    """Percentiles of the lateness, and whether the rate was kept."""
    sizes = setting.sizes
    count = int(rate * sizes.steady_s)
    low_ms, high_ms = sizes.steady_delay_ms
    async with setting.system.start(setting.folder) as running:
        work = Job(
            "work", running.address, count,
            concurrency=setting.system.concurrency,
            limit_s=sizes.steady_s + high_ms / 1_000 + LIMIT_S,
            out=str(setting.folder / "deliveries"),
        )  # fmt: skip
        async with driving.consuming(setting.driver, work, setting.folder) as consumer:
            cpu = driving.Cpu(running)
            load = Job(
                "steady", running.address, count,
                rate=rate, min_delay_ms=low_ms, max_delay_ms=high_ms,
            )  # fmt: skip
            answer = await driving.produce(setting.driver, load, setting.folder)
            deliveries = await consumer.deliveries()
            used = cpu.per_task_us(count, answer["cpu_s"] + consumer.cpu_s)
        left = float(await running.left()) if running.left else 0.0
    if not deliveries:
        raise BenchError("nothing was delivered")
    late = [each.late_ms for each in deliveries]
    return {
        **{name: driving.percentile(late, share) for name, share in SHARES.items()},
        "behind_ms": answer["behind_ms"],
        "failed": answer["failed"],
        "left": left,
        **asdict(driving.exactness(deliveries, count)),
        **used,
    }


def steady(rate: int, *, alone: bool = False) -> Workload:
    """The workload of a rate, in tasks per second."""
    return Workload(
        f"steady-{rate}",
        f"{rate:,} tasks per second with random delays: lateness",
        partial(measure, rate=rate),
        "p99_ms",
        more_is_better=False,
        suits=lambda system: system.works,
        alone=alone,
    )
