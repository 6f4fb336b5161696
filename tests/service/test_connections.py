"""Clients that connect and do no more, send half of a request, or never read: each costs little."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from ddq.config import Settings
from ddq.v1 import delay_queue_admin_service_pb2 as admin
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import delay_queue_service_pb2_grpc as queue_grpc
from ddq.v1 import task_pb2
from tests.support import http2
from tests.support.rpc import DEADLINE_S, failure_of
from tests.support.server import RunningServer, serving
from tests.support.store import StoreServer

ENQUEUE = "/ddq.v1.DelayQueueService/Enqueue"
LIST = "/ddq.v1.DelayQueueService/ListTasks"
STREAM = "/ddq.v1.DelayQueueService/StreamRetrieve"
HEALTH = "/grpc.health.v1.Health/Watch"
PAYLOAD_BYTES = 100_000
TASK = pb.EnqueueRequest(topic="jobs")
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


class RawConnection:
    """A connection of a client that does what a test says, and nothing by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def send(self, *frames: bytes) -> None:
        """Sends frames."""
        self.writer.write(b"".join(frames))

    def call(self, path: str, message: bytes | None, stream: int = 1) -> None:
        """Begins a call, with its request if there is one."""
        self.send(http2.frame(http2.HEADERS, http2.END_HEADERS, stream, http2.call_headers(path)))
        if message is not None:
            self.send(
                http2.frame(http2.DATA, http2.END_STREAM, stream, http2.message(message)),
            )

    async def frames_until(self, kind: int) -> list[tuple[int, int, int, bytes]]:
        """What the server sends, until a frame of the kind has come or the connection closes."""
        data = b""
        while True:
            found = http2.frames(data)
            if any(each[0] == kind for each in found):
                return found
            more = await asyncio.wait_for(self._reader.read(65_536), DEADLINE_S)
            if not more:
                return found
            data += more

    async def closed(self) -> bool:
        """Whether the server closes the connection without a word."""
        return not await asyncio.wait_for(self._reader.read(1), DEADLINE_S)


@contextlib.asynccontextmanager
async def raw(server: RunningServer, *, hello: bytes = b"") -> AsyncIterator[RawConnection]:
    """A connection that has begun with ``hello``."""
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(hello)
    try:
        yield RawConnection(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


NONE = -1
"""No frame is of this kind."""
HELLO = http2.PREFACE + http2.settings()


async def fill(server: RunningServer, tasks: int, delay_s: int = 0) -> None:
    """Tasks that are due after a delay."""
    for task_id in range(tasks):
        request = pb.EnqueueRequest(topic="jobs")
        request.task.id, request.task.payload = str(task_id), bytes(PAYLOAD_BYTES)
        request.task.delay.seconds = delay_s
        await server.queue.Enqueue(request)


async def leased(server: RunningServer) -> int:
    reply = await server.admin.GetTopicStats(admin.GetTopicStatsRequest(topic="jobs"))
    return int(reply.counts.leased)


async def test_connections_are_bounded_and_one_that_ends_makes_room(
    store_server: StoreServer,
) -> None:
    settings = Settings(drain_ms=1, connections_max_count=4)
    async with serving(store_server, settings) as server, contextlib.AsyncExitStack() as others:
        await server.admin.ListTopics(admin.ListTopicsRequest())
        for _ in range(3):
            connection = await others.enter_async_context(raw(server))
            assert not await connection.closed()
        async with raw(server) as fifth:
            assert await fifth.closed()
        await others.aclose()
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = queue_grpc.DelayQueueServiceStub(channel)
            request = pb.EnqueueRequest(topic="jobs")
            # The server notices the end of the others a moment later.
            await stub.Enqueue(request, timeout=DEADLINE_S, wait_for_ready=True)


async def test_a_connection_without_calls_is_closed(store_server: StoreServer) -> None:
    settings = Settings(drain_ms=1, connection_idle_ms=300)
    async with serving(store_server, settings) as server, raw(server, hello=HELLO) as connection:
        frames = await connection.frames_until(http2.GOAWAY)
        assert frames[-1][0] == http2.GOAWAY
        # A client connects again by itself.
        for _ in range(2):
            await server.admin.ListTopics(admin.ListTopicsRequest(), wait_for_ready=True)
            while server.channel.get_state() is grpc.ChannelConnectivity.READY:
                await server.channel.wait_for_state_change(grpc.ChannelConnectivity.READY)


async def test_calls_of_one_connection_are_bounded_and_those_of_others_are_not_refused(
    store_server: StoreServer,
) -> None:
    settings = Settings(drain_ms=1, connection_calls_max_count=3)
    poll = pb.RetrieveRequest(topics=["jobs"], wait=Duration(seconds=20))
    async with serving(store_server, settings) as server:
        polls = [asyncio.ensure_future(server.queue.Retrieve(poll)) for _ in range(4)]
        ended, waiting = await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
        failure = await failure_of(next(iter(ended)))
        assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
        async with grpc.aio.insecure_channel(server.address, OWN_CONNECTION) as channel:
            await queue_grpc.DelayQueueServiceStub(channel).Enqueue(TASK)
        served, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert [len((await each).tasks) for each in served] == [1]


@pytest.mark.parametrize("path", [ENQUEUE, STREAM, HEALTH])
async def test_a_call_without_its_request_is_ended(store_server: StoreServer, path: str) -> None:
    settings = Settings(drain_ms=1, transfer_timeout_ms=200)
    async with serving(store_server, settings) as server, raw(server, hello=HELLO) as connection:
        connection.call(path, None)
        frames = await connection.frames_until(http2.HEADERS)
        # DEADLINE_EXCEEDED
        assert b"grpc-status\x014" in next(
            data for kind, *_, data in frames if kind == http2.HEADERS
        )


async def test_a_connection_that_does_not_take_a_reply_is_closed(
    store_server: StoreServer,
) -> None:
    settings = Settings(drain_ms=1, transfer_timeout_ms=300)
    async with serving(store_server, settings) as server, raw(server, hello=HELLO) as connection:
        await fill(server, 3, delay_s=3_600)
        request = pb.ListTasksRequest(
            topic="jobs", state=task_pb2.TASK_STATE_SCHEDULED, view=task_pb2.TASK_VIEW_FULL
        )
        connection.call(LIST, request.SerializeToString())
        frames = await connection.frames_until(NONE)
        assert 60_000 < sum(len(data) for kind, *_, data in frames if kind == http2.DATA) <= 65_535
        # Others are not affected.
        await server.queue.Enqueue(TASK)


async def test_a_stream_that_is_not_read_holds_a_bounded_number_of_tasks(
    store_server: StoreServer,
) -> None:
    settings = Settings(drain_ms=1, transfer_timeout_ms=1_000)
    async with serving(store_server, settings) as server, raw(server, hello=HELLO) as connection:
        await fill(server, 100)
        request = pb.StreamRetrieveRequest(add_credit_tasks=10_000, add_credit_bytes=64 << 20)
        request.subscribe.topics.append("jobs")
        request.subscribe.lease_duration.seconds = 600
        connection.call(STREAM, None)
        data = http2.message(request.SerializeToString())
        connection.send(http2.frame(http2.DATA, 0, 1, data))
        await connection.frames_until(NONE)
        # One reply of at most 3 MiB was on its way, and what had room beside it in the connection.
        assert 1 <= await leased(server) <= 2 * (3 << 20) // PAYLOAD_BYTES
