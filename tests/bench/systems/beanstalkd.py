"""beanstalkd, a server that keeps tasks in memory and in a log of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import processes
from tests.bench.systems import Driver, Running
from tests.bench.systems.tools import python_driver, require

SYNC_EVERY_MS = 1_000
"""As the store of the others syncs every second."""


@dataclass
class Beanstalkd:
    name: str = "beanstalkd"
    bulk: int = 0
    works: bool = True
    concurrency: int = 8
    lead_s: float = 4.0
    tasks_max: int = 100_000

    def prepare(self) -> Driver:
        require("beanstalkd", "apt-get install beanstalkd")
        return python_driver("beanstalkd")

    @asynccontextmanager
    async def start(self, folder: Path) -> AsyncIterator[Running]:
        port = processes.free_port()
        log = folder / f"beanstalkd-{port}"
        log.mkdir()
        command = [
            "beanstalkd", "-l", "127.0.0.1", "-p", str(port), "-b", str(log),
            "-f", str(SYNC_EVERY_MS),
        ]  # fmt: skip
        async with processes.running(command, log / "output", port=port) as pid:

            async def memory() -> int:
                return processes.resident_bytes(pid)

            yield Running(f"127.0.0.1:{port}", {"server": pid}, memory)
