"""What the store's processor spends on a script: microseconds per task, from INFO commandstats.

    make bench-scripts
    make bench-scripts ARGS='--sizes 1 10 100 --rounds 50 --sweeps 5'

Prints for each script and batch size the time and the commands of one task. A time is the median
of a sweep's batches, and the least of the sweeps. Nothing is asserted: a busy machine makes
processor time dearer.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Awaitable
from typing import Any

from rich.console import Console
from rich.table import Table

from ddq.config import Settings
from ddq.store.job_values import Leased, Settlement
from tests.support.queue import Queue, call, new_task
from tests.support.store import ControlledStore, StoreServer, run_store

PAYLOAD = b"x" * 256
UUID = "{:08x}-7a3c-4b1e-9d2f-{:012x}"


class Measurement:
    """Times and commands of scripts, by script name and batch size."""

    def __init__(self, server: StoreServer) -> None:
        self.server = server
        self.us: dict[tuple[str, int], list[float]] = defaultdict(list)
        self.commands: dict[tuple[str, int], float] = {}

    async def take(self, name: str, size: int, operation: Awaitable[Any]) -> Any:
        """Runs an operation that is one script for ``size`` tasks."""
        self.server.reset_stats()
        answer = await operation
        figures: Any = self.server.sync.info("commandstats")
        scripts = [figures.get(f"cmdstat_{each}") for each in ("evalsha", "eval")]
        self.us[name, size].append(sum(each["usec"] for each in scripts if each) / size)
        own = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_config", "cmdstat_info")
        calls = sum(each["calls"] for key, each in figures.items() if not key.startswith(own))
        self.commands[name, size] = calls / size
        return answer


async def one_round(queue: Queue, measurement: Measurement, size: int, number: int) -> None:
    """A batch of tasks from enqueue to ack."""
    topic, held = await queue.topic(), await queue.lead()
    ids = [UUID.format(number, each) for each in range(size)]
    await measurement.take(
        "enqueue", size, queue.enqueue(*(new_task(each, PAYLOAD) for each in ids))
    )
    promote = queue.store.scheduler_api.promote(topic, queue.shard, held, call())
    moved = await measurement.take("promote", size, promote)
    assert moved.count == size
    leases: list[Leased] = await measurement.take("retrieve", size, queue.retrieve(size))
    assert len(leases) == size
    items = [Settlement(lease.task.id, lease.token) for lease in leases]
    outcomes = await measurement.take("ack", size, queue.store.jobs.ack(queue.name, items, call()))
    assert all(outcome.error is None for outcome in outcomes)


async def measure(server: StoreServer, sizes: list[int], rounds: int) -> Measurement:
    """``rounds`` batches of each size after a few that do not count, over 10,000 waiting tasks."""
    measurement = Measurement(server)
    store = ControlledStore(server, Settings(promote_batch_count=max(sizes)))
    queue = Queue(store)
    try:
        await queue.create()
        for first in range(0, 10_000, 1_000):
            waiting = [f"w{first + each}" for each in range(1_000)]
            await queue.enqueue(*(new_task(each, PAYLOAD, delay_ms=10**9) for each in waiting))
        for size in sizes:
            for number in range(rounds + 3):
                if number == 3:
                    # The first batches send the texts of the scripts.
                    for key in [key for key in measurement.us if key[1] == size]:
                        del measurement.us[key]
                await one_round(queue, measurement, size, number * len(sizes) + sizes.index(size))
    finally:
        await store.close()
    return measurement


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="make bench-scripts", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--rounds", type=int, default=30, help="batches of each size")
    parser.add_argument("--sweeps", type=int, default=3, help="stores of their own")
    options = parser.parse_args()
    us: dict[tuple[str, int], float] = {}
    commands: dict[tuple[str, int], float] = {}
    for _ in range(options.sweeps):
        with run_store() as server:
            sweep = asyncio.run(measure(server, options.sizes, options.rounds))
        for key, values in sweep.us.items():
            us[key] = min(us.get(key, math.inf), statistics.median(values))
        commands |= sweep.commands
    table = Table("script", *(f"µs at {size}" for size in options.sizes), title="per task")
    for size in options.sizes:
        table.add_column(f"commands at {size}")
    for name in ("enqueue", "promote", "retrieve", "ack"):
        times = (f"{us[name, size]:.1f}" for size in options.sizes)
        table.add_row(name, *times, *(f"{commands[name, size]:.2f}" for size in options.sizes))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
