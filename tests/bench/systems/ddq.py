"""ddq: `ddq serve` with a scheduler, in front of the same store as the peers; and its variants."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from chaos.clusters.process import SentinelCluster
from ddq.client import Client, TopicSettings
from tests.bench import processes
from tests.bench.peers.ddq import TOPIC
from tests.bench.systems import Driver, Running
from tests.bench.systems.tools import go_program, python_driver


@dataclass(frozen=True)
class Backend:
    """The store of a ddq.

    Attributes:
        url: for ``--store``.
        flags: of ``ddq serve``, that go with it.
        pids: its processes, by layer.
        memory: reads the bytes that its master occupies.
    """

    url: str
    pids: dict[str, int]
    memory: Callable[[], Awaitable[int]]
    flags: Sequence[str] = ()


@dataclass
class Ddq:
    """ddq, driven by its own client and worker.

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
        async with (
            self._backend(folder) as backend,
            self._serving(folder, backend) as (address, server),
            Client(address) as client,
        ):
            await client.create_topic(TOPIC, shards=self.shards)
            pids = {**backend.pids, "server": server}
            yield Running(
                address, pids, backend.memory, partial(_left, client), partial(_bound, client)
            )

    @asynccontextmanager
    async def _backend(self, folder: Path) -> AsyncIterator[Backend]:
        async with processes.store(folder) as (port, pid):
            memory = partial(processes.used_memory_bytes, port)
            yield Backend(f"redis://127.0.0.1:{port}/0", {"store": pid}, memory)

    @asynccontextmanager
    async def _serving(self, folder: Path, backend: Backend) -> AsyncIterator[tuple[str, int]]:
        port = processes.free_port()
        address = f"127.0.0.1:{port}"
        command = [
            str(Path(sys.executable).with_name("ddq")), "serve", "--scheduler",
            "--store", backend.url, "--listen", address, "--log-level", "error",
            *backend.flags, *self.flags,
        ]  # fmt: skip
        log = folder / f"ddq-{port}.log"
        # Of several processes the first one listens before the others.
        async with processes.running(command, log, port=port, says=f" on {address}") as pid:
            yield address, pid


@dataclass
class ThreeNodes(Ddq):
    """ddq on a master with two replicas that three Sentinels watch.

    Attributes:
        durability: what a reply waits for: fast, quorum or all.
    """

    durability: str = "fast"

    @asynccontextmanager
    async def _backend(self, folder: Path) -> AsyncIterator[Backend]:
        cluster = SentinelCluster(folder=folder / "nodes")
        await cluster.start()
        try:
            master = cluster.data[0]
            pids = {
                "store" if node is master else f"replica_{node.name}": cluster._children[node].pid
                for node in cluster.data
            }
            memory = partial(processes.used_memory_bytes, master.port, master.ip)
            flags = ("--data-nodes", cluster.data_nodes, "--durability", self.durability)
            yield Backend(cluster.store_url, pids, memory, flags)
        finally:
            await cluster.stop()


@dataclass
class Unary(Ddq):
    """ddq, called from Go by one unary call per task."""

    name: str = "ddq-unary-go"
    bulk: int = 0
    works: bool = False

    def prepare(self) -> Driver:
        return Driver([str(go_program("unary"))])


async def _bound(client: Client, max_tasks: int) -> None:
    await client.update_topic(TOPIC, TopicSettings(max_tasks=max_tasks))


async def _left(client: Client) -> int:
    counts = (await client.stats(TOPIC)).counts
    return counts.scheduled + counts.ready + counts.leased + counts.dead
