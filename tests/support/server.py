"""A whole ddq server in this process, and a channel to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio

from ddq.config import Settings
from ddq.server import ServerInfo, ServerOptions, run_server
from ddq.v1 import delay_queue_admin_service_pb2_grpc as admin_grpc
from ddq.v1 import delay_queue_service_pb2_grpc as queue_grpc
from tests.support.store import StoreServer

STOP_TIMEOUT_S = 30.0


@dataclass
class RunningServer:
    """A server that answers.

    Attributes:
        address: HOST:PORT.
        channel: to it.
        queue, admin: stubs of its services.
        stop: set it to stop the server.
        task: ends when the server has stopped.
        store: the Valkey behind it.
    """

    address: str
    channel: grpc.aio.Channel
    queue: Any
    admin: Any
    stop: asyncio.Event
    task: asyncio.Task[None]
    store: StoreServer


@asynccontextmanager
async def serving(
    store: StoreServer, settings: Settings | None = None, *, scheduler: bool = True
) -> AsyncIterator[RunningServer]:
    """Runs a server on a free port of the loopback until the block ends."""
    stop = asyncio.Event()
    ready: asyncio.Future[ServerInfo] = asyncio.get_running_loop().create_future()
    options = ServerOptions("127.0.0.1:0", store.url, scheduler, settings or Settings(drain_ms=1))
    task = asyncio.create_task(run_server(options, stop=stop, on_ready=ready.set_result))
    try:
        task.add_done_callback(lambda _: ready.done() or ready.cancel())
        await asyncio.wait([ready])
        if ready.cancelled():
            await task
        address = ready.result().address
        async with grpc.aio.insecure_channel(address) as channel:
            yield RunningServer(
                address,
                channel,
                queue_grpc.DelayQueueServiceStub(channel),
                admin_grpc.DelayQueueAdminServiceStub(channel),
                stop,
                task,
                store,
            )
    finally:
        stop.set()
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await task
