"""A server that follows a script, and a clock that moves only during sleeps."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from ddq.errors import DOMAIN, DdqError
from ddq.v1 import delay_queue_admin_service_pb2 as admin_pb2
from ddq.v1 import delay_queue_admin_service_pb2_grpc as admin_grpc
from ddq.v1 import delay_queue_service_pb2_grpc as queue_grpc
from ddq.v1 import topic_pb2

Step = Message | status_pb2.Status | grpc.StatusCode | Callable[[Any], Awaitable[Message]]


def refusal(
    kind: type[DdqError], *, retry_delay_s: float | None = None, reason: str | None = None
) -> status_pb2.Status:
    """The status that a server sends for an error of the tree."""
    status = status_pb2.Status(code=kind.code.value[0], message=f"because {kind.__name__}")
    info = error_details_pb2.ErrorInfo(
        reason=reason or kind.reason, domain=DOMAIN, metadata={"topic": "mail"}
    )
    details: list[Message] = [info]
    if retry_delay_s is not None:
        delay = Duration()
        delay.FromNanoseconds(int(retry_delay_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


class FakeServer:
    """Answers each RPC with the steps of its script in order; the last one stays.

    A message is the answer, a Status of ours an error with details, a bare code one from the
    transport: the effect may have happened and the reply was lost. A function makes one of the
    first two from the request.
    """

    def __init__(self) -> None:
        self.script: dict[str, list[Step]] = defaultdict(list)
        # Deleting a topic begins with a look at which one has the name.
        self.script["GetTopic"] = [admin_pb2.GetTopicResponse(topic=topic_pb2.Topic(uid=b"u" * 16))]
        self.requests: dict[str, list[Any]] = defaultdict(list)
        self.address = ""

    def __getattr__(self, name: str) -> Callable[[Any, Any], Awaitable[Message]]:
        if name.startswith("_"):
            raise AttributeError(name)

        async def handle(request: Any, context: Any) -> Message:
            self.requests[name].append(request)
            steps = self.script[name]
            step = steps.pop(0) if len(steps) > 1 else steps[0]
            if isinstance(step, status_pb2.Status):
                await context.abort_with_status(rpc_status.to_status(step))
            if isinstance(step, grpc.StatusCode):
                await context.abort(step, "the transport failed")
            if callable(step):
                reply = await step(request)
                if isinstance(reply, status_pb2.Status):
                    await context.abort_with_status(rpc_status.to_status(reply))
                return reply
            assert isinstance(step, Message)
            return step

        return handle


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[FakeServer]:
    """A fake server on a free port."""
    fake = FakeServer()
    server = grpc.aio.server()
    queue_grpc.add_DelayQueueServiceServicer_to_server(fake, server)  # type: ignore[arg-type]
    admin_grpc.add_DelayQueueAdminServiceServicer_to_server(fake, server)  # type: ignore[arg-type]
    fake.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield fake
    finally:
        await server.stop(grace=None)


class FakeTiming:
    """Time that passes only in sleep."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.sleeps_s: list[float] = []

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + int(self.now_s * 1_000)

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, delay_s: float) -> None:
        self.sleeps_s.append(delay_s)
        self.now_s += delay_s
        await asyncio.sleep(0)
