"""ddq: `ddq serve` with a scheduler, in front of the same store as the peers."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ddq.client import Client
from tests.bench import processes
from tests.bench.peers.ddq import TOPIC
from tests.bench.systems import Driver, Running
from tests.bench.systems.tools import python_driver


@dataclass
class Ddq:
    """ddq.

    Attributes:
        shards: of the topic.
        flags: further flags of ``ddq serve``.
    """

    name: str = "ddq"
    bulk: int = 100
    works: bool = True
    concurrency: int = 200
    lead_s: float = 4.0
    tasks_max: int = 1_000_000
    shards: int = 1
    flags: Sequence[str] = field(default_factory=tuple)

    def prepare(self) -> Driver:
        return python_driver("ddq")

    @asynccontextmanager
    async def start(self, folder: Path) -> AsyncIterator[Running]:
        async with processes.store(folder) as (port, pid):
            url = f"redis://127.0.0.1:{port}/0"
            memory = partial(processes.used_memory_bytes, port)
            async with (
                self._serving(folder, url) as (address, server),
                Client(address) as client,
            ):
                await client.create_topic(TOPIC, shards=self.shards)
                pids = {"store": pid, "server": server}
                yield Running(address, pids, memory, partial(_left, client))

    @asynccontextmanager
    async def _serving(self, folder: Path, url: str) -> AsyncIterator[tuple[str, int]]:
        port = processes.free_port()
        address = f"127.0.0.1:{port}"
        command = [
            str(Path(sys.executable).with_name("ddq")), "serve", "--scheduler", "--store", url,
            "--listen", address, "--log-level", "error", *self.flags,
        ]  # fmt: skip
        log = folder / f"ddq-{port}.log"
        async with processes.running(command, log, port=port) as pid:
            yield address, pid


async def _left(client: Client) -> int:
    counts = (await client.stats(TOPIC)).counts
    return counts.scheduled + counts.ready + counts.leased + counts.dead
