"""A whole ddq server in this process, and a channel to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from ddq.config import Settings
from ddq.scheduler.process import SchedulerInfo, SchedulerOptions, run_scheduler
from ddq.server import ServerOptions, run_server
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
        metrics: HOST:PORT of its metrics.
    """

    address: str
    channel: grpc.aio.Channel
    queue: Any
    admin: Any
    stop: asyncio.Event
    task: asyncio.Task[None]
    store: StoreServer
    metrics: str | None


@asynccontextmanager
async def serving(
    store: StoreServer,
    settings: Settings | None = None,
    *,
    scheduler: bool | None = True,
    metrics: str | None = None,
    credentials: grpc.ChannelCredentials | None = None,
) -> AsyncIterator[RunningServer]:
    """Runs a server on a free port of the loopback until the block ends.

    Args:
        credentials: of the channel; None: plain text.
    """
    options = ServerOptions(
        "127.0.0.1:0", store.url, scheduler, settings or Settings(drain_ms=1), metrics
    )
    async with (
        _running(run_server, options) as (info, stop, task),
        (
            grpc.aio.insecure_channel(info.address)
            if credentials is None
            else grpc.aio.secure_channel(info.address, credentials)
        ) as channel,
    ):
        yield RunningServer(
            info.address,
            channel,
            queue_grpc.DelayQueueServiceStub(channel),
            admin_grpc.DelayQueueAdminServiceStub(channel),
            stop,
            task,
            store,
            info.metrics,
        )


@asynccontextmanager
async def scheduling(
    store: StoreServer, settings: Settings | None = None, *, metrics: str | None = None
) -> AsyncIterator[SchedulerInfo]:
    """Runs a scheduler until the block ends."""
    options = SchedulerOptions(store.url, settings or Settings(), metrics)
    async with _running(run_scheduler, options) as (info, _, _):
        yield info


@asynccontextmanager
async def _running(
    run: Callable[..., Coroutine[Any, Any, None]], options: object
) -> AsyncIterator[tuple[Any, asyncio.Event, asyncio.Task[None]]]:
    """Until the block ends; what it said when it was ready, what stops it, and its task."""
    stop = asyncio.Event()
    ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run(options, stop=stop, on_ready=ready.set_result))
    try:
        task.add_done_callback(lambda _: ready.done() or ready.cancel())
        await asyncio.wait([ready])
        if ready.cancelled():
            await task
        yield ready.result(), stop, task
    finally:
        stop.set()
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await task
