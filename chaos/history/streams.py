"""Streams of leases that are recorded: each reply is a Retrieve under the request_id that it has.

The n-th reply of a subscription may be leased from the moment at which there is credit for n tasks
more than the replies before it had, so its operation begins then: as many operations are open as
replies may be on their way. What a call that failed may have leased is unknown; after an end in
good order nothing was.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from chaos.history import convert
from chaos.history.notes import CreditNote
from chaos.history.operations import CUT_OFF, Failed, Retrieve, Retrieved
from chaos.history.reader import Type
from chaos.history.recorder import Recorder
from chaos.history.writer import HistoryWriter
from ddq.client import Client, ItemResult, Lease, LeaseRef, LeaseStream, Released, StreamCall
from ddq.client.convert import lease as read_lease
from ddq.errors import DdqError
from ddq.v1 import delay_queue_service_pb2 as pb

WAIT_MS = 60_000
"""How long a reply may take where nothing is due: as long as a call lasts."""


class RecordedStreams:
    """Opens streams of a client, and records what they lease.

    A StreamSource.

    Args:
        name: of the process whose streams these are, without a dot.
    """

    def __init__(self, writer: HistoryWriter, client: Client, name: str) -> None:
        self._writer = writer
        self._client = client
        self._recorder = Recorder(writer, client, f"{name}r")
        self._name = name
        self._max_tasks = 0
        self._free: list[str] = []
        self._count = 0
        self._unknowns = 0

    @property
    def unknowns(self) -> int:
        """Operations whose outcome is unknown."""
        return self._unknowns + self._recorder.unknowns

    def open(
        self, topics: Sequence[str], *, max_tasks: int, lease: timedelta, **options: Any
    ) -> LeaseStream:
        """A stream like that of Client.stream_retrieve; one at a time.

        Args:
            max_tasks: for which there will be credit at the same time, at most.
            options: further ones of LeaseStream.
        """
        self._max_tasks = max_tasks
        return LeaseStream(self, topics, lambda: secrets.token_hex(8), lease=lease, **options)

    async def open_stream(self) -> StreamCall:
        """See StreamSource.open_stream."""
        return RecordedCall(self, await self._client.open_stream(), self._max_tasks)

    async def retrieve(
        self,
        topics: str | Sequence[str],
        *,
        max_tasks: int = 1,
        lease: timedelta | None = None,
        wait: timedelta | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> list[Lease]:
        """See Client.retrieve."""
        return await self._recorder.retrieve(
            topics,
            max_tasks=max_tasks,
            lease=lease,
            wait=wait,
            request_id=request_id,
            timeout_s=timeout_s,
        )

    async def release_batch(
        self, leases: Sequence[LeaseRef], *, timeout_s: float | None = None
    ) -> list[ItemResult[Released]]:
        """See Client.release_batch."""
        return await self._recorder.release_batch(leases, timeout_s=timeout_s)

    # For the calls

    def note(self, request_id: str, credit: CreditNote) -> None:
        """A stream begins or ends to ask for tasks."""
        self._writer.note(request_id, "credit", credit)

    def begin(self, request: Retrieve) -> str:
        """An operation begins; returns the process that it is of."""
        if self._free:
            process = self._free.pop()
        else:
            self._count += 1
            process = f"{self._name}s{self._count}"
        self._writer.event(process, "invoke", "retrieve", request=request)
        return process

    def end(self, process: str, outcome: Type, reply: Retrieved | Failed) -> None:
        """It ends; a process whose operation may take effect later does nothing more."""
        self._writer.event(process, outcome, "retrieve", reply=reply)
        if outcome == "info":
            self._unknowns += 1
        else:
            self._free.append(process)


class RecordedCall:
    """One StreamRetrieve; a StreamCall."""

    def __init__(self, streams: RecordedStreams, call: StreamCall, max_tasks: int) -> None:
        self._streams = streams
        self._call = call
        self._max_tasks = max_tasks
        self._subscription = pb.Subscription()
        self._credit = 0
        self._replies_count = 0
        self._begun: dict[int, str] = {}
        self._asks = False

    async def write(self, message: pb.StreamRetrieveRequest) -> None:
        """See StreamCall.write."""
        if message.HasField("subscribe"):
            self._subscription.CopyFrom(message.subscribe)
        self._credit += message.add_credit_tasks
        assert self._credit <= self._max_tasks
        if self._credit > 0 and not self._asks:
            self._asks = True
            self._streams.note(self._subscription.request_id, CreditNote(self._credit))
        self._begin()
        await self._call.write(message)

    def _begin(self) -> None:
        """The operations of all replies that there is credit for."""
        first = self._replies_count + 1
        for number in range(first, first + self._credit):
            if number not in self._begun:
                request = Retrieve(
                    [*self._subscription.topics],
                    f"{self._subscription.request_id}/{number}",
                    # More credit than there is now may come before this reply does.
                    self._max_tasks,
                    self._subscription.lease_duration.ToMilliseconds() or None,
                    WAIT_MS,
                )
                self._begun[number] = self._streams.begin(request)

    async def read(self) -> pb.StreamRetrieveResponse | None:
        """See StreamCall.read.

        Raises:
            RuntimeError: the server has leased more than there was credit for.
        """
        try:
            reply = await self._call.read()
        except DdqError as error:
            # A status of the server comes behind all replies.
            self._end_all("fail" if error.definite else "info", str(error))
            raise
        except BaseException as error:
            self._end_all("info", type(error).__name__)
            raise
        if reply is None:
            self._end_all("fail", "the call ended in good order")
        elif reply.tasks:
            self._replies_count += 1
            self._credit -= len(reply.tasks)
            if self._credit < 0:
                raise RuntimeError(f"{-self._credit} tasks more than there was credit for")
            leases = [convert.lease_value(read_lease(message)) for message in reply.tasks]
            self._streams.end(self._begun.pop(self._replies_count), "ok", Retrieved(leases))
            if self._credit == 0:
                self._ask_for_none(f"{self._subscription.request_id}/{self._replies_count}")
        return reply

    def _ask_for_none(self, spent_by: str = "") -> None:
        if self._asks:
            self._asks = False
            self._streams.note(self._subscription.request_id, CreditNote(0, spent_by))

    async def close_requests(self) -> None:
        """See StreamCall.close_requests."""
        self._ask_for_none()
        await self._call.close_requests()

    def cancel(self) -> None:
        """See StreamCall.cancel."""
        self._call.cancel()
        self._end_all("info", "the call was cancelled")

    def _end_all(self, outcome: Type, why: str) -> None:
        begun, self._begun = self._begun, {}
        self._ask_for_none()
        for process in begun.values():
            self._streams.end(process, outcome, Failed(CUT_OFF, why[:200]))


__all__ = ["RecordedStreams"]
