"""StreamRetrieve: leases tasks for a client as far as it has given credit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack

from ddq.config import LIMITS
from ddq.server import wire
from ddq.server.requests import lease_ms, topics
from ddq.server.retrieval import Leave, Retrieval, Standing, Wanted
from ddq.server.rpc import CallFactory
from ddq.server.validation import Problems
from ddq.store.job_values import Leased, content_bytes
from ddq.v1 import delay_queue_service_pb2 as pb

ROUND_S = 40.0
"""The time of one round: it waits for the first task, and its last question needs some too."""
ROUND_WAIT_S = 30.0
"""How long a round waits for its first task; then the next one begins."""
_ROUND_SUFFIX_BYTES = 12
"""Bytes of a request_id that are kept for the number of the reply, with the slash before it."""

Write = Callable[[pb.StreamRetrieveResponse], Awaitable[None]]


class Credit:
    """What a client may still be sent.

    Attributes:
        tasks: how many tasks.
        bytes: of payloads and headers; below 0 after a task that was larger than what was left.
        changed: is set when there is more of it, and when the stream is to end.
        leave: ends the wait for a task.
    """

    def __init__(self) -> None:
        self.tasks = 0
        self.bytes = 0
        self.changed = asyncio.Event()
        self.leave = Leave()

    def add(self, problems: Problems, request: pb.StreamRetrieveRequest) -> None:
        """Adds what a message says, if that is within the limits."""
        for field, value, most in (
            (
                "add_credit_tasks",
                self.tasks + request.add_credit_tasks,
                LIMITS.stream_credit_max_tasks,
            ),
            (
                "add_credit_bytes",
                self.bytes + request.add_credit_bytes,
                LIMITS.stream_credit_max_bytes,
            ),
        ):
            if value > most:
                problems.add(field, f"makes the open credit {value}; it may be {most}")
        problems.raise_if_any()
        self.tasks += request.add_credit_tasks
        self.bytes += request.add_credit_bytes
        self.changed.set()

    def take(self, leases: Sequence[Leased]) -> None:
        """Counts what is sent."""
        self.tasks -= len(leases)
        for lease in leases:
            self.bytes -= content_bytes(lease)

    def end(self) -> None:
        """Nothing more is leased for the stream."""
        self.leave.now()
        self.changed.set()

    @property
    def is_there(self) -> bool:
        """Whether a task may be leased."""
        return self.tasks > 0 and self.bytes > 0


class Streams:
    """The StreamRetrieves of this server."""

    def __init__(self, retrieval: Retrieval) -> None:
        self._retrieval = retrieval
        self._credits: set[Credit] = set()

    def end(self) -> None:
        """Ends all of them; the last message of each says that the server stops."""
        for credit in self._credits:
            credit.end()

    async def run(
        self,
        requests: AsyncIterator[pb.StreamRetrieveRequest],
        write: Write,
        calls: CallFactory,
    ) -> None:
        """Serves one, until its client has closed the requests or the server stops.

        Raises:
            InvalidArgument: a message that is out of bounds.
            DdqError: as Retrieval.retrieve; the client subscribes again.
        """
        first = await anext(requests, None)
        subscription, asked_lease_ms = _subscription(first)
        assert first is not None
        credit = Credit()
        credit.add(Problems(), first)
        self._credits.add(credit)
        reading = asyncio.create_task(_read(requests, credit), name="ddq stream credit")
        replies_count = 0
        place = ExitStack()
        standing: Standing | None = None
        try:
            while True:
                await credit.changed.wait()
                if reading.done() or self._retrieval.is_ending:
                    break
                if not credit.is_there:
                    credit.changed.clear()
                    place.close()
                    standing = None
                    continue
                standing = standing or place.enter_context(
                    self._retrieval.standing(subscription.topics)
                )
                wanted = Wanted(
                    subscription.topics,
                    min(credit.tasks, LIMITS.retrieve_max_tasks),
                    min(credit.bytes, LIMITS.retrieve_max_bytes),
                    asked_lease_ms,
                    ROUND_WAIT_S,
                )
                stem = subscription.request_id
                round_id = f"{stem}/{replies_count + 1}" if stem else ""
                call = calls.make(pb.RetrieveRequest(request_id=round_id), ROUND_S)
                leases = await self._retrieval.retrieve(wanted, call, credit.leave, standing)
                if leases:
                    replies_count += 1
                    credit.take(leases)
                    reply = pb.StreamRetrieveResponse()
                    wire.put_leased_tasks(reply.tasks, leases)
                    await write(reply)
            if reading.done():
                reading.result()
            else:
                await write(pb.StreamRetrieveResponse(draining=True))
        finally:
            place.close()
            self._credits.discard(credit)
            reading.cancel()


def _subscription(
    first: pb.StreamRetrieveRequest | None,
) -> tuple[pb.Subscription, int | None]:
    """What the first message subscribes to, and the lease that it asks for."""
    problems = Problems()
    if first is None or not first.HasField("subscribe"):
        problems.add("subscribe", "is unset in the first message")
    problems.raise_if_any()
    assert first is not None
    subscription = first.subscribe
    topics(problems, subscription.topics, "subscribe.topics")
    asked_lease_ms = lease_ms(problems, subscription)
    size, most = len(subscription.request_id.encode()), LIMITS.request_id_max_bytes
    if size > most - _ROUND_SUFFIX_BYTES:
        problems.add(
            "subscribe.request_id",
            f"has {size} bytes; give at most {most - _ROUND_SUFFIX_BYTES}",
        )
    problems.raise_if_any()
    return subscription, asked_lease_ms


async def _read(requests: AsyncIterator[pb.StreamRetrieveRequest], credit: Credit) -> None:
    """Adds what comes to the credit, until the client has closed the requests."""
    try:
        async for request in requests:
            problems = Problems()
            if request.HasField("subscribe"):
                problems.add("subscribe", "is only for the first message")
            elif not (request.add_credit_tasks or request.add_credit_bytes):
                problems.add("add_credit_tasks", "is 0, and add_credit_bytes too; add to one")
            credit.add(problems, request)
    finally:
        credit.end()
