"""More calls than a server can begin with: a bounded number waits, the others have no effect."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import grpc
import pytest

from ddq.config import Settings
from ddq.v1 import delay_queue_admin_service_pb2 as admin
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import delay_queue_service_pb2_grpc as queue_grpc
from tests.support.rpc import DEADLINE_S
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

    def block(self, count: int) -> None:
        """Keeps the event loop from running until so many calls have ended."""
        end_s = time.monotonic() + DEADLINE_S / 2
        while sum(call.done() for call in self._calls) < count and time.monotonic() < end_s:
            time.sleep(0.001)

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
    settings = Settings(drain_ms=1, calls_waiting_max_count=20)
    async with serving(store_server, settings) as server:
        with grpc.insecure_channel(server.address) as channel:
            await asyncio.to_thread(grpc.channel_ready_future(channel).result, DEADLINE_S)
            calls = Calls(channel, 80)
            # gRPC has one call ready for the handlers beside those that wait.
            calls.block(80 - 22)
            codes = await calls.codes()
        assert set(codes) == {"OK", "CANCELLED"}
        assert 20 <= codes["OK"] <= 22
        assert await scheduled(server) == codes["OK"]


@pytest.mark.parametrize("count", [1_200])
async def test_no_call_within_the_bound_is_refused(store_server: StoreServer, count: int) -> None:
    """gRPC begins to refuse at 1,000, by chance."""
    async with serving(store_server) as server:
        with grpc.insecure_channel(server.address) as channel:
            await asyncio.to_thread(grpc.channel_ready_future(channel).result, DEADLINE_S)
            assert await Calls(channel, count).codes() == {"OK": count}
        assert await scheduled(server) == count
