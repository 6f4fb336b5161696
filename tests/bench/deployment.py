"""What a measurement runs on: a store, and `ddq serve` with a scheduler in a process of its own."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc.aio

from chaos.clusters.process import ShardedCluster
from ddq.config import Settings
from ddq.server import ServerInfo, ServerOptions, run_server
from ddq.store.embedded import EmbeddedStore
from ddq.store.open import Store, open_store
from ddq.store.topology import StoreUrl, open_topology, parse_store_url
from ddq.v1 import delay_queue_admin_service_pb2_grpc as admin_grpc
from ddq.v1 import delay_queue_service_pb2_grpc as queue_grpc
from tests.bench import processes

CHANNELS_COUNT = 8
"""Connections over which calls are spread: one carries 100 calls at a time as fast as it can."""


@dataclass(frozen=True)
class Served:
    """A server with a scheduler, and ways to it and to its store.

    Attributes:
        queues: stubs, each on a connection of its own.
        store: opened by the measurement itself, beside the server.
    """

    queues: list[Any]
    admin: Any
    store: Store


@asynccontextmanager
async def embedded_store() -> AsyncIterator[tuple[EmbeddedStore, str]]:
    """A Valkey, and its URL."""
    with TemporaryDirectory(prefix="ddq-bench-") as folder:
        embedded = EmbeddedStore(Path(folder), sync_always=False)
        await embedded.start()
        try:
            yield embedded, str(StoreUrl("unix", path=embedded.socket_path))
        finally:
            await embedded.stop()


@asynccontextmanager
async def cluster_store() -> AsyncIterator[ShardedCluster]:
    """A Cluster of nine processes."""
    with TemporaryDirectory(prefix="ddq-bench-") as folder:
        cluster = ShardedCluster(folder=Path(folder))
        try:
            await cluster.start()
            yield cluster
        finally:
            await cluster.stop()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    """The store as ddq's own code uses it; what is prepared waits for no replica."""
    store = open_store(open_topology(parse_store_url(url)), Settings(durability="fast"))
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def serving(url: str, store: Store, settings: Settings) -> AsyncIterator[Served]:
    """A server on the store."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.deployment", url, json.dumps(asdict(settings)),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    channels: list[grpc.aio.Channel] = []
    try:
        address = (await process.stdout.readline()).decode().strip()
        if not address:
            raise SystemExit("the server did not start")
        # Calls of channels with equal options would share a connection.
        channels += [
            grpc.aio.insecure_channel(address, options=[("ddq.number", number)])
            for number in range(CHANNELS_COUNT)
        ]
        queues: list[Any] = [queue_grpc.DelayQueueServiceStub(channel) for channel in channels]
        yield Served(queues, admin_grpc.DelayQueueAdminServiceStub(channels[0]), store)
    finally:
        for channel in channels:
            await channel.close(None)
        await processes.end(process)


async def serve(url: str, settings: Settings) -> None:
    """The server's own process, so that the measurement does not wait for its event loop."""
    # The measurement causes warnings on purpose; they would hide its own output.
    logging.getLogger("ddq").setLevel(logging.CRITICAL)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(15, stop.set)

    def ready(info: ServerInfo) -> None:
        sys.stdout.write(f"{info.address}\n")
        sys.stdout.flush()

    options = ServerOptions("127.0.0.1:0", url, scheduler=True, settings=settings)
    await run_server(options, stop=stop, on_ready=ready)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Settings(**json.loads(sys.argv[2]))))
