"""What a failed RPC says, read from the wire without ddq's own client."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2

from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2

DEADLINE_S = 30.0


@dataclass(frozen=True)
class Failure:
    """A status with its details.

    Attributes:
        code: the name of the gRPC code.
        reason: of its ErrorInfo; empty without one.
        fields: that its BadRequest names, in order.
        retry_s: of its RetryInfo; None without one.
    """

    code: str
    reason: str
    message: str
    fields: tuple[str, ...]
    retry_s: float | None


async def failure_of(awaitable: Awaitable[Any]) -> Failure:
    """How the call failed."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    return failure_from(caught.value)


def failure_from(error: grpc.aio.AioRpcError) -> Failure:
    """What a failed call says."""
    trailing: Any = error.trailing_metadata() or ()
    details = [value for key, value in trailing if key == "grpc-status-details-bin"]
    if not details:
        return Failure(error.code().name, "", error.details() or "", (), None)
    (raw,) = details
    status = status_pb2.Status.FromString(raw)
    assert status.code == error.code().value[0]
    return failure_in(status)


def failure_in(status: status_pb2.Status) -> Failure:
    """What a google.rpc.Status says; for the items of batches too."""
    reason, fields, retry_s = "", [], None
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            assert info.domain == "ddq.v1"
            reason = info.reason
        elif detail.Unpack(bad):
            assert all(violation.description for violation in bad.field_violations)
            fields = [violation.field for violation in bad.field_violations]
        elif detail.Unpack(retry):
            retry_s = retry.retry_delay.ToMilliseconds() / 1_000
    code = {number.value[0]: number.name for number in grpc.StatusCode}[status.code]
    return Failure(code, reason, status.message, tuple(fields), retry_s)


def seconds(value: float) -> Duration:
    """A duration."""
    duration = Duration()
    duration.FromNanoseconds(round(value * 1e9))
    return duration


def moment(ms: int) -> Timestamp:
    """Ms since 1970."""
    return Timestamp(seconds=ms // 1_000, nanos=ms % 1_000 * 1_000_000)


class Producer:
    """The usual requests on one topic, as short calls."""

    def __init__(self, stub: Any, topic: str = "jobs") -> None:
        self.stub = stub
        self.topic = topic

    async def add(self, task_id: str = "a", **spec: Any) -> pb.EnqueueResponse:
        """Enqueues one task."""
        reply: pb.EnqueueResponse = await self.stub.Enqueue(
            pb.EnqueueRequest(topic=self.topic, task=task_pb2.TaskSpec(id=task_id, **spec)),
            timeout=DEADLINE_S,
        )
        return reply

    async def take(self, count: int = 1, **options: Any) -> list[pb.LeasedTask]:
        """Retrieves exactly so many, waiting for each."""
        options.setdefault("wait", seconds(20))
        found: list[pb.LeasedTask] = []
        while len(found) < count:
            reply: pb.RetrieveResponse = await self.stub.Retrieve(
                pb.RetrieveRequest(topics=[self.topic], max_tasks=count - len(found), **options),
                timeout=DEADLINE_S,
            )
            assert reply.tasks, "nothing became ready"
            found += reply.tasks
        return found

    async def take_one(self, task_id: str = "a", **spec: Any) -> pb.LeasedTask:
        """Enqueues a task and leases it."""
        await self.add(task_id, **spec)
        (leased,) = await self.take(1)
        assert leased.task.id == task_id
        return leased

    async def dead_letter(self, task_id: str = "a", **spec: Any) -> None:
        """Enqueues a task and dead-letters it."""
        leased = await self.take_one(task_id, **spec)
        await self.stub.Nack(
            pb.NackRequest(
                topic=self.topic,
                id=task_id,
                lease_token=leased.lease_token,
                verdict=pb.NackVerdict(dead_letter=True, error="poison"),
            ),
            timeout=DEADLINE_S,
        )
