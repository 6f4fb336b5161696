"""A server that has nothing to do does nothing: counted over a real minute."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio
import pytest
import redis.asyncio

from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import delay_queue_service_pb2_grpc as queue_grpc
from ddq.v1 import task_pb2
from tests.e2e.conftest import Dev
from tests.support.rpc import seconds

DELAY_S = 60


async def watch(client: redis.asyncio.Redis, seen: list[str], ready: asyncio.Event) -> None:
    """Every command that clients send; MONITOR marks those that scripts run as "lua"."""
    async with client.monitor() as monitor:
        ready.set()
        commands: Any = monitor.listen()
        while True:
            command = await anext(commands)
            if command["client_type"] != "lua":
                seen.append(command["command"].split()[0])


@pytest.mark.timeout(3 * DELAY_S)
async def test_one_task_due_in_a_minute_costs_fewer_than_ten_commands(dev: Dev) -> None:
    client = redis.asyncio.Redis(
        unix_socket_path=str(dev.folder / "valkey.sock"), socket_timeout=None
    )
    seen: list[str] = []
    ready = asyncio.Event()
    async with client, grpc.aio.insecure_channel(dev.address) as channel:
        queue: Any = queue_grpc.DelayQueueServiceStub(channel)
        watcher = asyncio.create_task(watch(client, seen, ready))
        await ready.wait()
        await queue.Enqueue(
            pb.EnqueueRequest(topic="idle", task=task_pb2.TaskSpec(id="a", delay=seconds(DELAY_S)))
        )
        # What its creation costs: registry, shard, the scheduler's first look.
        await queue.Retrieve(pb.RetrieveRequest(topics=["idle"], wait=seconds(2)))
        assert seen, "MONITOR sees what is sent"
        creation = len(seen)
        # No client waits for it: what is seen in this minute comes from the server alone.
        await asyncio.sleep(DELAY_S - 3)
        minute = seen[creation:]
        reply = await queue.Retrieve(pb.RetrieveRequest(topics=["idle"], wait=seconds(20)))
        assert [leased.task.id for leased in reply.tasks] == ["a"]
        # Who counts has been awake all the time: it saw the promotion and the delivery.
        assert not watcher.done()
        assert len(seen) - creation - len(minute) >= 2, seen
        assert minute, "at least the safety sweep"
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
    print(f"commands sent in the idle minute: {len(minute)}: {minute}")
    assert len(minute) < 10, minute
