"""Tasks on one call, as they become ready: StreamRetrieve, reconnected and repeated as need be."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Protocol, TypeVar

from ddq import tracing
from ddq.client import convert
from ddq.client.repeat import Backoff
from ddq.client.values import ItemResult, Lease, LeaseRef, Released
from ddq.config import LIMITS, MIB
from ddq.entropy import Entropy, SystemEntropy
from ddq.errors import (
    DdqError,
    InvalidArgument,
    OutcomeUnknown,
    PermissionDenied,
    Unauthenticated,
    Unimplemented,
)
from ddq.v1 import delay_queue_service_pb2 as pb

log = logging.getLogger("ddq.client")

T = TypeVar("T")

HOPELESS = (InvalidArgument, Unauthenticated, PermissionDenied, Unimplemented)
"""Errors that no repeat will change: the stream ends with them."""

STREAM_MAX_BYTES = 8 * MIB
"""Payloads and headers that may be on their way to a reader, unless it says otherwise."""
RENEW_S = 60.0
"""A call is closed in good order after this long, and the next one subscribes again: a server that
no longer does anything, but still answers pings, is left by then."""
END_S = 5.0
"""A call whose requests are closed has to end within this time."""
POLL_S = 20.0
"""How long one Retrieve waits where the server has no StreamRetrieve."""


class StreamCall(Protocol):
    """One StreamRetrieve, as LeaseStream uses it."""

    async def write(self, message: pb.StreamRetrieveRequest) -> None:
        """Sends a message. Does not raise if the call has ended: read() does."""

    async def read(self) -> pb.StreamRetrieveResponse | None:
        """The next reply; None at the end, in good order.

        Raises:
            DdqError: the call has failed; replies may have been lost.
        """

    async def close_requests(self) -> None:
        """The server leases nothing more, sends what it has leased, and ends the call."""

    def cancel(self) -> None:
        """Ends the call at once; read() raises."""


class StreamSource(Protocol):
    """What a LeaseStream asks of a client."""

    async def open_stream(self) -> StreamCall:
        """Begins a StreamRetrieve.

        Raises:
            DdqError: there is no connection.
        """

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

    async def release_batch(
        self, leases: Sequence[LeaseRef], *, timeout_s: float | None = None
    ) -> list[ItemResult[Released]]:
        """See Client.release_batch."""


class LeaseStream:
    """Leases of some topics, as far as credit was given for them, in the order of their arrival.

    Made by ``Client.stream_retrieve``::

        async with client.stream_retrieve("mail") as stream:
            stream.add_credit(10)
            async for leases in stream:
                for lease in leases:
                    ...
                stream.add_credit(len(leases))

    It lasts through failures: it subscribes again, after the leases were asked for that a broken
    call may have brought. Where the server has no StreamRetrieve it uses Retrieve. At the end of
    the block nothing more is leased, and what was not read is released.

    Args:
        source: the client.
        topics: one or up to 16.
        new_id: makes ids that no other request has.
        lease: how long the leases run; None: the topic's default.
        max_bytes: payloads and headers that may be on their way, 1 byte to 64 MiB; a single larger
            task is delivered all the same.
        poll: how long one Retrieve waits where that is used, up to 60 s.
        on_change: called when something can be taken, or the stream has ended.
    """

    def __init__(
        self,
        source: StreamSource,
        topics: Sequence[str],
        new_id: Callable[[], str],
        *,
        lease: timedelta | None = None,
        max_bytes: int = STREAM_MAX_BYTES,
        poll: timedelta = timedelta(seconds=POLL_S),
        on_change: Callable[[], None] = lambda: None,
        entropy: Entropy | None = None,
    ) -> None:
        self._source = source
        self._topics = topics
        self._new_id = new_id
        self._lease = lease
        self._subscription = pb.Subscription(topics=topics)
        convert.put_duration(self._subscription.lease_duration, lease)
        self._max_bytes = max_bytes
        self._poll = poll
        self._on_change = on_change
        self._entropy = entropy or SystemEntropy()
        self._backoff = Backoff()
        self._arrived: deque[list[Lease]] = deque()
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()
        self._closing = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._credit = 0
        # Of the call under way
        self._call: StreamCall | None = None
        self._sending: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._open_credit = 0
        self._unread_bytes = 0
        self._owed_bytes = 0
        self._ends = False
        self._timer: asyncio.TimerHandle | None = None
        # Of replies that may have been lost
        self._stem = ""
        self._replies_count = 0
        self._open_id = ""
        self._is_unary = False
        self._failures_count = 0
        self._cut: asyncio.Task[Any] | None = None

    # What a reader does

    @property
    def credit(self) -> int:
        """How many tasks may still arrive."""
        return self._credit

    @property
    def has_ended(self) -> bool:
        """Whether nothing more arrives: it was closed, or has failed for good."""
        return self._pump is not None and self._pump.done()

    @property
    def failures(self) -> int:
        """Calls that have failed since one was answered, or ended in good order."""
        return self._failures_count

    def add_credit(self, tasks: int) -> None:
        """So many more tasks may be leased.

        Small amounts are sent together, while the server has more than that left.

        Raises:
            ValueError: ``tasks`` is below 1.
            RuntimeError: the stream was closed.
        """
        if tasks < 1:
            raise ValueError(f"tasks is {tasks}; give at least 1")
        if self._closing.is_set():
            raise RuntimeError("the stream is closed")
        self._credit += tasks
        self._wanted.set()
        if self._pump is None:
            self._pump = asyncio.create_task(self._run(), name="ddq stream")
        self._send_soon()

    def take(self) -> list[Lease]:
        """What has arrived, without a wait; empty: nothing.

        Raises:
            InvalidArgument, Unauthenticated, PermissionDenied, Unimplemented: the server refuses
                the subscription; everything that had arrived was taken before.
        """
        if not self._arrived:
            if self._error is not None:
                raise self._error
            return []
        leases = self._arrived.popleft()
        while self._arrived:
            leases += self._arrived.popleft()
        self._owed_bytes, self._unread_bytes = self._owed_bytes + self._unread_bytes, 0
        if self._owed_bytes >= self._max_bytes // 2:
            self._send_soon()
        return leases

    async def read(self, timeout_s: float | None = None) -> list[Lease]:
        """What has arrived, as soon as that is anything; empty: the time is over, or it was closed.

        Args:
            timeout_s: None: without limit.

        Raises:
            InvalidArgument, Unauthenticated, PermissionDenied, Unimplemented: as take().
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not (leases := self.take()) and not self._closing.is_set():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return []
        return leases

    def __aiter__(self) -> LeaseStream:
        return self

    async def __anext__(self) -> list[Lease]:
        leases = await self.read()
        if not leases:
            raise StopAsyncIteration
        return leases

    async def close(self) -> list[Lease]:
        """Ends it: nothing is leased from now on. Takes at most about 10 s.

        Returns:
            What had arrived and was not read, for the caller to release.
        """
        if not self._closing.is_set():
            self._closing.set()
            self._wanted.set()
            self._changed.set()
            if self._cut is not None:
                self._cut.cancel()
            self._end_call()
        if self._pump is not None:
            await asyncio.wait({self._pump})
        leases = [lease for batch in self._arrived for lease in batch]
        self._arrived.clear()
        return leases

    async def __aenter__(self) -> LeaseStream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if leases := await self.close():
            try:
                await self._source.release_batch(leases, timeout_s=END_S)
            except DdqError as failure:
                log.warning(
                    "%(leases_count)d leases may run out unused: %(error)s",
                    {"leases_count": len(leases), "error": failure},
                )

    # Subscribing, again and again

    async def _run(self) -> None:
        try:
            while True:
                await self._wanted.wait()
                if self._closing.is_set():
                    if self._open_id:
                        await self._recall(max_tasks=1, timeout_s=END_S)
                    return
                try:
                    await self._work()
                except HOPELESS:
                    raise
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if task is None or task.cancelling() or not self._closing.is_set():
                        raise
                    # It was close() that cut a request off.
                except DdqError as error:
                    self._failures_count += 1
                    log.warning(
                        "the stream of tasks failed, trying again: %(error)s", {"error": error}
                    )
                    await self._pause()
        except DdqError as error:
            if self._closing.is_set():
                log.warning(
                    "leases of the last reply may run out unused: %(error)s", {"error": error}
                )
            self._failures_count += 1
            self._error = error
        except Exception as error:  # noqa: BLE001 - take() raises it
            self._error = error
        finally:
            self._changed.set()
            self._on_change()

    async def _work(self) -> None:
        """One call after the other, until there is no credit or one of them fails.

        Raises:
            DdqError: it failed.
        """
        if self._open_id:
            await self._recall()
        elif self._is_unary:
            await self._retrieve()
        else:
            await self._subscribe()
            if not (self._ends or self._is_unary):
                # A server that stops ends each new call at once.
                await self._pause()

    async def _pause(self) -> None:
        delay_s = self._backoff.delay_s(max(self._failures_count, 1), None, self._entropy.random())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._closing.wait()

    def _got(self, leases: list[Lease]) -> None:
        self._failures_count = 0
        self._credit = max(0, self._credit - len(leases))
        if not (self._credit or self._closing.is_set()):
            self._wanted.clear()
        if leases:
            self._arrived.append(leases)
            self._changed.set()
            self._on_change()

    # By StreamRetrieve

    async def _subscribe(self) -> None:
        """One call, from its subscription to its end.

        Raises:
            DdqError: it failed.
        """
        try:
            call = await self._until_closed(self._source.open_stream())
        except Unimplemented:
            self._is_unary = True
            return
        self._stem, self._replies_count = self._new_id(), 0
        self._unread_bytes, self._owed_bytes, self._ends = 0, 0, False
        self._subscription.request_id = self._stem
        self._open_credit = min(self._credit, LIMITS.stream_credit_max_tasks)
        try:
            await call.write(
                pb.StreamRetrieveRequest(
                    subscribe=self._subscription,
                    add_credit_tasks=self._open_credit,
                    add_credit_bytes=self._max_bytes,
                )
            )
            self._call = call
            # Not all at the same time: the calls of many clients would else end together.
            span_s = RENEW_S * (0.5 + self._entropy.random() / 2)
            self._timer = asyncio.get_running_loop().call_later(span_s, self._end_call)
            if self._closing.is_set():
                self._end_call()
            self._send_soon()
            while (reply := await call.read()) is not None:
                if reply.tasks:
                    self._replies_count += 1
                    self._open_credit -= len(reply.tasks)
                    self._unread_bytes += _content_bytes(reply.tasks)
                    if tracing.current is not None:
                        tracing.current.receive(reply.tasks)
                    self._got([convert.lease(message) for message in reply.tasks])
                    self._send_soon()
            self._failures_count = 0
        except Unimplemented:
            self._is_unary = True
        except BaseException as error:
            # Else the server has sent all that it leased: its status comes behind the replies.
            is_open = not (isinstance(error, DdqError) and error.definite)
            if is_open and self._open_credit > 0:
                # It may have leased tasks, in a reply that was lost.
                self._open_id = self._next_id
            raise
        finally:
            self._call = None
            if self._timer is not None:
                self._timer.cancel()
            for task in (self._sending, self._ending):
                if task is not None:
                    task.cancel()
            self._sending = self._ending = None
            call.cancel()

    def _more_tasks(self) -> int:
        """What the server may be sent now, beside what it has left."""
        more = min(self._credit, LIMITS.stream_credit_max_tasks) - self._open_credit
        # Small amounts would come back as small replies, each with a script of its own.
        return more if more > 0 and more >= self._open_credit else 0

    def _send_soon(self) -> None:
        """Tells the server of more credit, if that is worth a message."""
        if self._call is None or self._ends or self._sending is not None:
            return
        if self._more_tasks() or self._owed_bytes >= self._max_bytes // 2:
            self._sending = asyncio.create_task(self._send(self._call), name="ddq stream credit")

    async def _send(self, call: StreamCall) -> None:
        # Whatever is added in this turn of the loop is in the message.
        try:
            while not self._ends:
                more = self._more_tasks()
                if not (more or self._owed_bytes >= self._max_bytes // 2):
                    break
                self._open_credit += more
                owed_bytes, self._owed_bytes = self._owed_bytes, 0
                await call.write(
                    pb.StreamRetrieveRequest(add_credit_tasks=more, add_credit_bytes=owed_bytes)
                )
        finally:
            self._sending = None

    def _end_call(self) -> None:
        """Ends the call under way in good order, within a time."""
        if self._call is None or self._ends:
            return
        self._ends = True
        self._ending = asyncio.create_task(self._close_requests(self._call, self._sending))
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(END_S, self._call.cancel)

    @staticmethod
    async def _close_requests(call: StreamCall, sending: asyncio.Task[None] | None) -> None:
        # One thing at a time is written.
        if sending is not None:
            await asyncio.wait({sending})
        await call.close_requests()

    async def _until_closed(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for what close() cuts off."""
        task = asyncio.create_task(work)
        self._cut = task
        try:
            return await task
        finally:
            self._cut = None

    # By Retrieve

    async def _recall(
        self, *, max_tasks: int | None = None, timeout_s: float | None = None
    ) -> None:
        """Asks for the leases of replies that may have been lost, each by its request_id.

        If there was no such reply, new tasks are leased, and none was lost after it.

        Args:
            max_tasks: how many new ones at most; None: as there is credit.
        """
        while self._open_id:
            leases = await self._ask(timedelta(0), max_tasks, timeout_s)
            self._replies_count += 1
            # Fewer than two, of one that may be a new lease: there may have been no such reply.
            is_last = len(leases) < (1 if max_tasks is None else 2) or not self._credit
            self._open_id = "" if is_last or not self._stem else self._next_id

    async def _retrieve(self) -> None:
        """One Retrieve of a server that has no StreamRetrieve."""
        self._stem, self._open_id = "", self._new_id()
        try:
            await self._ask(self._poll)
        except OutcomeUnknown:
            # The next server may have it.
            self._is_unary = False
            raise
        except DdqError:
            self._is_unary, self._open_id = False, ""
            raise
        self._open_id = ""

    async def _ask(
        self, wait: timedelta, max_tasks: int | None = None, timeout_s: float | None = None
    ) -> list[Lease]:
        leases = await self._until_closed(
            self._source.retrieve(
                self._topics,
                max_tasks=max_tasks or min(self._credit, LIMITS.retrieve_max_tasks),
                lease=self._lease,
                wait=wait,
                request_id=self._open_id,
                timeout_s=timeout_s,
            )
        )
        self._got(leases)
        return leases

    @property
    def _next_id(self) -> str:
        """The request_id of the reply that is expected next."""
        return f"{self._stem}/{self._replies_count + 1}"


HEADER_BYTES = 4
"""What a header counts beside its key and its value."""


def _content_bytes(messages: Iterable[Any]) -> int:
    """Payloads and headers, as the server counts them."""
    size_bytes = 0
    for message in messages:
        task = message.task
        size_bytes += task.payload_size_bytes
        if task.headers:
            for key, value in task.headers.items():
                size_bytes += len(key.encode()) + len(value.encode()) + HEADER_BYTES
    return size_bytes
