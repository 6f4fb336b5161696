"""SIGKILL in the middle of 10,000 tasks: nothing acknowledged is lost, what is done stays done."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
import pytest

from ddq.v1 import delay_queue_admin_service_pb2 as admin_pb
from ddq.v1 import delay_queue_admin_service_pb2_grpc as admin_grpc
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import delay_queue_service_pb2_grpc as queue_grpc
from ddq.v1 import task_pb2
from tests.e2e.conftest import Dev
from tests.support.rpc import seconds

TASKS_COUNT = 10_000
BATCH = 50
TOPIC = "crash"
LEASE_S = 3.0
WAIT_S = 1.0
PLAY_TIMEOUT_S = 100.0


def payload_of(task_id: str) -> bytes:
    return f"the bytes of {task_id}".encode()


class Load:
    """The requests of the clients, and the replies that they got."""

    def __init__(self) -> None:
        self.batches = [
            [f"t{i}" for i in range(start, start + BATCH)] for start in range(0, TASKS_COUNT, BATCH)
        ]
        self.enqueued: set[str] = set()
        self.finished: set[str] = set()
        self.delivered: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.half_way = asyncio.Event()

    async def produce(self, queue: Any, most: int = TASKS_COUNT) -> None:
        """Sends batches until all are acknowledged; one without an answer is sent again."""
        while self.batches and most:
            most -= 1
            batch = self.batches.pop()
            number = int(batch[0][1:])
            items = [
                pb.BatchEnqueueItem(
                    task=task_pb2.TaskSpec(
                        id=task_id,
                        payload=payload_of(task_id),
                        delay=seconds(number % 500 / 1_000),
                        retry_policy=task_pb2.RetryPolicy(
                            max_attempts=100, initial_backoff=seconds(0)
                        ),
                    )
                )
                for task_id in batch
            ]
            try:
                reply = await queue.BatchEnqueue(
                    pb.BatchEnqueueRequest(topic=TOPIC, items=items), timeout=30
                )
            except grpc.aio.AioRpcError:
                self.batches.append(batch)
                raise
            failed = [result.status for result in reply.results if result.status.code]
            if failed:
                self.batches.append(batch)
                continue
            self.enqueued |= set(batch)

    async def consume(self, queue: Any, admin: Any) -> None:
        """Takes and acks until the server says that all have ended."""
        while self.batches or not await everything_ended(admin):
            reply = await queue.Retrieve(
                pb.RetrieveRequest(
                    topics=[TOPIC],
                    max_tasks=BATCH,
                    wait=seconds(WAIT_S),
                    lease_duration=seconds(LEASE_S),
                ),
                timeout=30,
            )
            for leased in reply.tasks:
                task_id = leased.task.id
                self.delivered[task_id] += 1
                if task_id in self.finished:
                    self.wrong.append(f"{task_id} came back after its ack was acknowledged")
                if leased.task.payload != payload_of(task_id):
                    self.wrong.append(f"{task_id} has other bytes")
                store_ms = leased.receipt.store_time.ToMilliseconds()
                if store_ms < leased.task.due_time.ToMilliseconds():
                    self.wrong.append(f"{task_id} was early")
            if not reply.tasks:
                continue
            items = [
                pb.BatchAckItem(id=leased.task.id, lease_token=leased.lease_token)
                for leased in reply.tasks
            ]
            acks = await queue.BatchAck(pb.BatchAckRequest(topic=TOPIC, items=items), timeout=30)
            for item, result in zip(items, acks.results, strict=True):
                if result.status.code == 0:
                    self.finished.add(item.id)
            if len(self.finished) > TASKS_COUNT // 4:
                self.half_way.set()


async def everything_ended(admin: Any) -> bool:
    counts = (await admin.GetTopicStats(admin_pb.GetTopicStatsRequest(topic=TOPIC))).counts
    return bool(counts.enqueued == counts.succeeded == TASKS_COUNT)


async def until_broken(worker: Awaitable[None]) -> None:
    """Runs until it is through, or the server is gone."""
    try:
        await worker
    except grpc.aio.AioRpcError as error:
        if error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}:
            raise


async def play(dev: Dev, load: Load, kill: Callable[[], None] | None) -> None:
    """Runs producers and consumers at once, and ``kill`` half way."""
    async with grpc.aio.insecure_channel(dev.address) as channel:
        queue: Any = queue_grpc.DelayQueueServiceStub(channel)
        admin: Any = admin_grpc.DelayQueueAdminServiceStub(channel)
        # The first task makes the topic.
        await load.produce(queue, most=1)
        async with asyncio.timeout(PLAY_TIMEOUT_S), asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(until_broken(load.produce(queue)))
                group.create_task(until_broken(load.consume(queue, admin)))
            if kill is not None:
                await load.half_way.wait()
                assert load.batches, "there is still something to do"
                await asyncio.to_thread(kill)


@pytest.mark.parametrize("target", ["ddq", "store"])
async def test_nothing_acknowledged_is_lost_and_nothing_finished_comes_back(
    dev: Dev, target: str
) -> None:
    load = Load()
    statuses: list[int] = []

    def kill() -> None:
        statuses.append(dev.kill(dev.pid if target == "ddq" else dev.store_pid))

    await play(dev, load, kill)
    # Without its store ddq reports so and ends; it does not continue silently.
    assert statuses[0] != 0
    before = len(load.finished)
    assert before < TASKS_COUNT
    await asyncio.to_thread(dev.start)

    async with grpc.aio.insecure_channel(dev.address) as channel:
        admin: Any = admin_grpc.DelayQueueAdminServiceStub(channel)
        request = admin_pb.GetTopicStatsRequest(topic=TOPIC)
        counts = (await admin.GetTopicStats(request)).counts
        assert counts.enqueued >= len(load.enqueued)
        assert counts.succeeded >= before
        assert counts.enqueued == (
            counts.scheduled + counts.ready + counts.leased + counts.succeeded + counts.dead
        )

        await play(dev, load, None)
        assert load.wrong == []
        assert len(load.enqueued) == len(load.delivered) == TASKS_COUNT
        counts = (await admin.GetTopicStats(request)).counts
        # An ack whose answer was lost counts as well: the task did not come back.
        assert counts.enqueued == counts.succeeded == TASKS_COUNT
