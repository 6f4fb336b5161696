"""The client's side of StreamRetrieve, for a LeaseStream, call by call as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from ddq.client import ItemResult, Lease, LeaseRef, Released
from ddq.errors import DdqError, TransportError
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2
from tests.client.queue import RECEIPT


def leased(task_id: str, payload: bytes = b"", **headers: str) -> pb.LeasedTask:
    """A task as a reply carries it."""
    task = task_pb2.Task(
        topic="mail",
        id=task_id,
        payload=payload,
        payload_size_bytes=len(payload),
        headers=headers,
        attempt=1,
    )
    return pb.LeasedTask(task=task, lease_token=task_id.encode())


class FakeCall:
    """One StreamRetrieve.

    Attributes:
        sent: what the client has written.
        closed: the client has closed the requests.
    """

    def __init__(self) -> None:
        self.sent: list[pb.StreamRetrieveRequest] = []
        self.closed = asyncio.Event()
        self.cancelled = False
        self.wrote = asyncio.Event()
        self._replies: asyncio.Queue[pb.StreamRetrieveResponse | DdqError | None] = asyncio.Queue()

    async def write(self, message: pb.StreamRetrieveRequest) -> None:
        self.sent.append(message)
        self.wrote.set()

    async def read(self) -> pb.StreamRetrieveResponse | None:
        reply = await self._replies.get()
        if isinstance(reply, DdqError):
            raise reply
        return reply

    async def close_requests(self) -> None:
        self.closed.set()

    def cancel(self) -> None:
        self.cancelled = True
        self._replies.put_nowait(TransportError("CANCELLED: the call was cancelled"))

    # For the test

    def reply(self, *tasks: pb.LeasedTask, draining: bool = False) -> None:
        """The server sends a reply."""
        self._replies.put_nowait(pb.StreamRetrieveResponse(tasks=tasks, draining=draining))

    def end(self, error: DdqError | None = None) -> None:
        """The server ends the call, in good order or not."""
        self._replies.put_nowait(error)

    @property
    def stem(self) -> str:
        """The request_id of the subscription."""
        return self.sent[0].subscribe.request_id

    @property
    def credit(self) -> int:
        """All tasks for which there ever was credit."""
        return sum(message.add_credit_tasks for message in self.sent)

    @property
    def credit_bytes(self) -> int:
        """Likewise in bytes."""
        return sum(message.add_credit_bytes for message in self.sent)


class FakeSource:
    """A client: hands out the calls of a test, and answers Retrieves.

    Attributes:
        calls: those that were opened.
        open_errors: what opening raises instead, in order.
        recalled: the leases of a Retrieve by its request_id; others wait, and return nothing.
        retrieves: the arguments of each.
        released: ids.
    """

    def __init__(self) -> None:
        self.calls: list[FakeCall] = []
        self._opened: asyncio.Queue[FakeCall] = asyncio.Queue()
        self.open_errors: list[DdqError] = []
        self.recalled: dict[str, list[Lease]] = {}
        self.retrieve_errors: list[DdqError] = []
        self.retrieves: list[dict[str, Any]] = []
        self.released: list[str] = []
        self.asked = asyncio.Event()

    async def call(self) -> FakeCall:
        """The next call that is opened, once its first message was written."""
        call = await self._opened.get()
        await call.wrote.wait()
        return call

    async def open_stream(self) -> FakeCall:
        if self.open_errors:
            raise self.open_errors.pop(0)
        self.calls.append(FakeCall())
        self._opened.put_nowait(self.calls[-1])
        return self.calls[-1]

    async def retrieve(
        self,
        topics: str | Sequence[str],
        *,
        max_tasks: int = 1,
        max_bytes: int = 0,
        lease: timedelta | None = None,
        wait: timedelta | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> list[Lease]:
        assert request_id is not None
        self.retrieves.append({"request_id": request_id, "max_tasks": max_tasks, "wait": wait})
        self.asked.set()
        if self.retrieve_errors:
            raise self.retrieve_errors.pop(0)
        if request_id not in self.recalled and wait:
            await asyncio.Event().wait()
        return self.recalled.pop(request_id, [])

    async def release_batch(
        self, leases: Sequence[LeaseRef], *, timeout_s: float | None = None
    ) -> list[ItemResult[Released]]:
        self.released += [lease.id for lease in leases]
        return [ItemResult(lease.id, Released(2, RECEIPT)) for lease in leases]
