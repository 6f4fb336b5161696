"""What a scheduler costs that has little to do: many topics, few of them active.

    make bench-idle
    make bench-idle ARGS='--topics 10000 --schedulers 3 --seconds 120'

Prints for each scheduler its share of a core and the commands that it sent to the store, by its own
metrics; and, to hold them against, what the store counted without those of the load. Nothing is
asserted: a busy machine makes processor time dearer.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
import time
import urllib.request
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis

from ddq.config import MS_PER_SECOND, Settings
from ddq.store.embedded import EmbeddedStore
from ddq.store.open import Store, open_store
from ddq.store.topology import StoreUrl, open_topology
from ddq.task import TopicSettings
from tests.support.queue import call, new_task

DDQ = [sys.executable, "-c", "import sys; from ddq.cli import main; sys.exit(main())"]


@dataclass(frozen=True)
class Cost:
    """Of one scheduler, up to a moment: commands that it sent, and processor time in seconds."""

    commands: float
    cpu_s: float
    at_s: float


def cpu_s(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def scripts(store: redis.Redis) -> int:
    """Scripts that the store has run."""
    figures: Any = store.info("commandstats")
    return sum(figures.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


@dataclass(frozen=True)
class Running:
    """A scheduler, and where its metrics are."""

    process: asyncio.subprocess.Process
    metrics: str

    def cost(self) -> Cost:
        """Until now."""
        with urllib.request.urlopen(self.metrics) as reply:  # noqa: S310 - our own
            text = reply.read().decode()
        sent = re.search(r"^ddq_store_send_commands_sum (\S+)$", text, flags=re.MULTILINE)
        assert sent is not None
        return Cost(float(sent[1]), cpu_s(self.process.pid), time.monotonic())

    async def stop(self) -> None:
        """Ends it."""
        self.process.send_signal(signal.SIGTERM)
        await self.process.wait()


async def start(url: str) -> Running:
    """A scheduler."""
    process = await asyncio.create_subprocess_exec(
        *DDQ, "scheduler", "--store", url, "--metrics-listen", "127.0.0.1:0",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    said = (await process.stdout.readline()).decode()
    if (metrics := re.search(r"http://\S+", said)) is None:
        raise SystemExit("idle: the scheduler did not start")
    return Running(process, metrics[0])


async def load(store: Store, topic: str, interval_s: float, enqueued: list[int]) -> None:
    """Tasks come on one topic, at a steady rate; each is noted with its one script."""
    number = 0
    while True:
        task = new_task(f"t{number}", delay_ms=round(interval_s / 2 * MS_PER_SECOND))
        await store.jobs.enqueue(topic, [task], call())
        enqueued.append(1)
        await asyncio.sleep(interval_s)
        number += 1


async def bench(options: argparse.Namespace) -> str:
    """Measures."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="ddq-bench-")))
        embedded = EmbeddedStore(folder, sync_always=False)
        await embedded.start()
        stack.push_async_callback(embedded.stop)
        client = stack.enter_context(redis.Redis(unix_socket_path=str(embedded.socket_path)))
        url = StoreUrl("unix", path=embedded.socket_path)
        store = open_store(open_topology(url), Settings())
        stack.push_async_callback(store.close)
        for number in range(options.topics):
            await store.topics.create(f"topic{number}", 1, TopicSettings(), call())
        enqueued: list[int] = []
        loads = [
            asyncio.create_task(load(store, f"topic{number}", 1 / options.rate, enqueued))
            for number in range(options.active)
        ]
        schedulers = []
        for _ in range(options.schedulers):
            running = await start(str(url))
            stack.push_async_callback(running.stop)
            schedulers.append(running)
        await asyncio.sleep(options.settle)
        ran = scripts(client) - sum(enqueued)
        before = [running.cost() for running in schedulers]
        await asyncio.sleep(options.seconds)
        after = [running.cost() for running in schedulers]
        ran = scripts(client) - sum(enqueued) - ran
        for task in loads:
            task.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
    lines = [
        f"{options.topics} topics, {options.active} of them with {options.rate:g} tasks a second",
        f"machine: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {options.seconds:g} s",
    ]
    for number, (first, last) in enumerate(zip(before, after, strict=True), start=1):
        for_s = last.at_s - first.at_s
        lines.append(
            f"scheduler {number}: {100 * (last.cpu_s - first.cpu_s) / for_s:.2f} % of a core, "
            f"{(last.commands - first.commands) / for_s:.1f} commands/s"
        )
    lines.append(f"the store counted {ran / options.seconds:.1f} scripts/s of all of them")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="idle", description=__doc__.partition("\n")[0])
    parser.add_argument("--topics", type=int, default=1_000)
    parser.add_argument("--active", type=int, default=10, help="topics that have tasks")
    parser.add_argument("--rate", type=float, default=0.5, help="tasks a second on each of those")
    parser.add_argument("--schedulers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to measure")
    parser.add_argument("--settle", type=float, default=5.0, help="seconds before that")
    options = parser.parse_args()
    if not 0 <= options.active <= options.topics:
        parser.error("--active has to be from 0 to --topics")
    if min(options.rate, options.seconds, options.schedulers) <= 0:
        parser.error("--rate, --seconds and --schedulers have to be greater than 0")
    return options


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(bench(arguments())) + "\n")
