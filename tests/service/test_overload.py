"""More calls than a server can begin with: a bounded number waits, the others have no effect."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ddq.config import Settings
from ddq.errors import Overloaded
from ddq.server.waiting_calls import Channelz
from ddq.v1 import delay_queue_admin_service_pb2 as admin
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import delay_queue_service_pb2_grpc as queue_grpc
from tests.support.rpc import DEADLINE_S, Failure, failure_from, failure_of
from tests.support.server import RunningServer, serving
from tests.support.store import StoreServer


def request(number: int) -> pb.EnqueueRequest:
    made = pb.EnqueueRequest(topic="jobs")
    made.task.id = str(number)
    made.task.delay.seconds = 3_600
    return made


class Calls:
    """Calls of threads of their own, sent while the server's event loop stands still."""

    def __init__(self, channel: grpc.Channel, count: int) -> None:
        stub: Any = queue_grpc.DelayQueueServiceStub(channel)
        self._calls = [
            stub.Enqueue.future(request(number), timeout=DEADLINE_S) for number in range(count)
        ]

    def block(self, arrived: int) -> None:
        """Keeps the event loop from running until so many calls have reached the server."""
        counts = Channelz()
        end_s = time.monotonic() + DEADLINE_S / 2
        while counts.started_count() < arrived and time.monotonic() < end_s:
            time.sleep(0.001)

    async def failures(self) -> list[Failure]:
        """How those ended that failed."""
        await self.codes()
        return [failure_from(call) for call in self._calls if call.code() != grpc.StatusCode.OK]

    async def codes(self) -> Counter[str]:
        """How all of them ended."""
        ended = await asyncio.to_thread(lambda: [call.code().name for call in self._calls])
        return Counter(ended)


async def scheduled(server: RunningServer) -> int:
    reply = await server.admin.GetTopicStats(admin.GetTopicStatsRequest(topic="jobs"))
    return int(reply.counts.scheduled)


async def test_calls_beyond_the_bound_are_refused_and_have_no_effect(
    store_server: StoreServer,
) -> None:
    settings = Settings(drain_ms=1, calls_waiting_max_count=40)
    async with serving(store_server, settings) as server:
        with grpc.insecure_channel(server.address) as channel:
            await asyncio.to_thread(grpc.channel_ready_future(channel).result, DEADLINE_S)
            calls = Calls(channel, 75)
            calls.block(75)
            failures = await calls.failures()
        assert {(failure.code, failure.reason) for failure in failures} == {
            ("RESOURCE_EXHAUSTED", "OVERLOADED")
        }
        assert {failure.retry_s for failure in failures} == {Overloaded.retry_delay_s}
        # Until half of the bound is left.
        assert 15 <= 75 - len(failures) <= 25
        assert await scheduled(server) == 75 - len(failures)


async def test_calls_beyond_what_grpc_itself_takes_have_no_effect(
    store_server: StoreServer,
) -> None:
    settings = Settings(drain_ms=1, calls_waiting_max_count=20)
    async with serving(store_server, settings) as server:
        with grpc.insecure_channel(server.address) as channel:
            await asyncio.to_thread(grpc.channel_ready_future(channel).result, DEADLINE_S)
            calls = Calls(channel, 100)
            calls.block(100)
            codes = await calls.codes()
        assert set(codes) == {"OK", "CANCELLED", "RESOURCE_EXHAUSTED"}
        # gRPC has one call ready for the handlers beside those that wait.
        assert 58 <= codes["CANCELLED"] <= 60
        assert await scheduled(server) == codes["OK"]


@pytest.mark.parametrize("count", [1_200])
async def test_no_call_within_the_bound_is_refused(store_server: StoreServer, count: int) -> None:
    """gRPC begins to refuse at 1,000, by chance; a connection has at most 1,000 at a time."""
    settings = Settings(drain_ms=1, calls_waiting_max_ms=60_000)
    async with serving(store_server, settings) as server:
        with grpc.insecure_channel(server.address) as channel:
            await asyncio.to_thread(grpc.channel_ready_future(channel).result, DEADLINE_S)
            assert await Calls(channel, count).codes() == {"OK": count}
        assert await scheduled(server) == count


def long_poll(topics: int = 1) -> pb.RetrieveRequest:
    return pb.RetrieveRequest(
        topics=[f"{number:0128}" for number in range(topics)], wait=Duration(seconds=20)
    )


async def waiting_polls(server: RunningServer, count: int, topics: int) -> list[Any]:
    """Retrieves that wait; they have reached their handlers."""
    polls = [server.queue.Retrieve(long_poll(topics)) for _ in range(count)]
    # It is handed over after them.
    await server.admin.ListTopics(admin.ListTopicsRequest())
    return polls


@pytest.mark.parametrize(
    ("settings", "topics"),
    [
        (Settings(drain_ms=1, calls_running_max_count=5), 1),
        (Settings(drain_ms=1, calls_running_max_bytes=9_000), 16),
    ],
)
async def test_calls_under_way_are_bounded_and_health_still_answers(
    store_server: StoreServer, settings: Settings, topics: int
) -> None:
    async with serving(store_server, settings) as server:
        polls = await waiting_polls(server, 4, topics)
        if topics == 1:
            polls.append(server.queue.Retrieve(long_poll()))
        failure = await failure_of(server.queue.BatchEnqueue(batch()))
        assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
        assert failure.retry_s == Overloaded.retry_delay_s
        stub: Any = health_pb2_grpc.HealthStub(server.channel)
        reply = await stub.Check(health_pb2.HealthCheckRequest())
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)
        await server.queue.Enqueue(request(1))
        assert await scheduled(server) == 1


def batch() -> pb.BatchEnqueueRequest:
    made = pb.BatchEnqueueRequest(topic="jobs")
    made.items.add().task.payload = b"x" * 2_000
    return made
