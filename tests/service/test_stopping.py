"""How a server calls ``stop`` of gRPC: one call at a time, and none is interrupted.

grpc.aio ends the process in SIGSEGV where two overlap: one frees the server, the time of the other
one runs out in the same moment, and it cancels the calls of the freed server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from unittest import mock

import grpc.aio
import pytest

import ddq.server
from ddq.config import Settings
from ddq.server import ServerOptions, run_server
from ddq.v1 import delay_queue_service_pb2 as pb
from tests.service.test_server import FOR_EVER_MS, held_call
from tests.support.rpc import DEADLINE_S, failure_of
from tests.support.server import serving
from tests.support.store import StoreServer

STEPS = 200
"""Steps of the event loop: many more than a server takes between two calls of ``stop``."""


@dataclass
class FakeServer:
    """A gRPC server without a network; its ``stop`` returns when ``may_stop`` is set.

    Attributes:
        graces_s: what ``stop`` was called with.
        overlapped: whether ``stop`` was called while an earlier call had not returned.
        interrupted: whether a call of ``stop`` was cancelled.
    """

    graces_s: list[float | None] = field(default_factory=list)
    overlapped: bool = False
    interrupted: bool = False
    may_stop: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    running_stops: int = 0

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        del handlers

    def add_insecure_port(self, address: str) -> int:
        del address
        return 1

    async def start(self) -> None:
        pass

    async def stop(self, grace_s: float | None) -> None:
        self.graces_s.append(grace_s)
        self.overlapped |= self.running_stops > 0
        self.running_stops += 1
        self.stopping.set()
        try:
            await self.may_stop.wait()
        except asyncio.CancelledError:
            self.interrupted = True
            raise
        finally:
            self.running_stops -= 1


@dataclass
class Running:
    """A server process around a FakeServer.

    Attributes:
        fail: set it, and the task that watches the store's health fails.
    """

    server: FakeServer
    task: asyncio.Task[None]
    stop: asyncio.Event
    fail: asyncio.Event

    async def check(self, *, graces_s: list[float | None]) -> None:
        """Lets the server do what it can: ``stop`` runs still, and once."""
        for _ in range(STEPS):
            await asyncio.sleep(0)
        assert not self.server.overlapped
        assert not self.server.interrupted
        assert not self.task.done()
        assert self.server.graces_s == graces_s


@asynccontextmanager
async def running(store: StoreServer) -> AsyncIterator[Running]:
    """Until the block ends, which it does when the server has ended."""
    server, stop, ready, fail = FakeServer(), asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def watch_health(*_: object) -> None:
        await fail.wait()
        raise RuntimeError("health")

    options = ServerOptions("127.0.0.1:0", store.url, settings=Settings(drain_ms=FOR_EVER_MS))
    with (
        mock.patch.object(grpc.aio, "server", return_value=server),
        mock.patch.object(ddq.server.main, "watch_health", watch_health),
    ):
        task = asyncio.create_task(run_server(options, stop=stop, on_ready=lambda _: ready.set()))
        try:
            async with asyncio.timeout(DEADLINE_S):
                await ready.wait()
                yield Running(server, task, stop, fail)
            assert task.done()
        finally:
            server.may_stop.set()
            task.cancel()
            await asyncio.wait({task})
    assert not server.overlapped
    assert not server.interrupted


DRAIN_S = FOR_EVER_MS / 1_000


async def test_a_drain_is_one_stop_at_a_time(store_server: StoreServer) -> None:
    async with running(store_server) as it:
        it.stop.set()
        await it.server.stopping.wait()
        await it.check(graces_s=[DRAIN_S])
        it.server.may_stop.set()
        await it.task
        assert it.server.graces_s[0] == DRAIN_S


@pytest.mark.parametrize("drains", [True, False])
async def test_a_cancelled_server_does_not_interrupt_its_stop(
    store_server: StoreServer, drains: bool
) -> None:
    async with running(store_server) as it:
        if drains:
            it.stop.set()
        else:
            it.task.cancel()
        await it.server.stopping.wait()
        for _ in range(3):
            it.task.cancel()
            await it.check(graces_s=[DRAIN_S if drains else 0])
        it.server.may_stop.set()
        with pytest.raises(asyncio.CancelledError):
            await it.task


@pytest.mark.parametrize("drains", [True, False])
async def test_a_failure_beside_a_server_does_not_interrupt_its_stop(
    store_server: StoreServer, drains: bool
) -> None:
    async with running(store_server) as it:
        if drains:
            it.stop.set()
            await it.server.stopping.wait()
        it.fail.set()
        await it.server.stopping.wait()
        await it.check(graces_s=[DRAIN_S if drains else 0])
        it.server.may_stop.set()
        with pytest.raises(ExceptionGroup) as caught:
            await it.task
        assert caught.group_contains(RuntimeError, match="health")


async def test_a_second_request_to_end_ends_the_calls_that_run(store_server: StoreServer) -> None:
    """The second Ctrl-C cancels the server's task, and does not wait for the drain."""

    async def interrupted() -> None:
        with held_call() as (reached, _):
            async with serving(store_server, Settings(drain_ms=FOR_EVER_MS)) as server:
                request = pb.GetTaskRequest(topic="jobs", id="a")
                call = asyncio.ensure_future(server.queue.GetTask(request, timeout=DEADLINE_S))
                await reached.wait()
                server.stop.set()
                for _ in range(STEPS):
                    await asyncio.sleep(0)
                assert not server.task.done()
                server.task.cancel()
                failure = await failure_of(call)
                assert (failure.code, failure.message) == ("UNAVAILABLE", "the server is stopping")

    with pytest.raises(asyncio.CancelledError):
        await interrupted()
