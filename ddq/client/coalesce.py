"""Sends what concurrent calls ask for in one request.

A unary call costs about half a millisecond of CPU on each side whatever it does, so fifty callers
that each send a request of their own are limited by the number of requests. A Coalescer takes one
attempt of each of them and sends them as one batch. Each call keeps what it had alone: its
deadline, its repeats, its error, and its outcome where that stays unknown.

An attempt that finds no other one goes out at once, as the request that it would be without a
coalescer. While a few requests are on their way, further attempts wait and go out together as soon
as one of those has returned. So nothing waits in an idle client, and a batch grows with the load.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from ddq.client.batch import BatchAnswer, I, Item, is_ok
from ddq.client.status import (
    AttemptFailedError,
    Failure,
    failure_of_status,
    transport_failure,
)
from ddq.config import LIMITS, MIB
from ddq.errors import InvalidArgument, Overloaded, RequestExpired

A = TypeVar("A", bound=Message)

IN_FLIGHT_MAX_COUNT = 3
"""Requests on their way at the same time; more make the batches smaller, and nothing faster."""
SHARE_MIN_COUNT = 100
"""So many attempts and fewer go out in one request, which costs as much as 10 to 20 of them."""
WAITING_MAX_COUNT = 100_000
"""Calls of one RPC and topic that may wait to be sent; one more is refused."""
WAITING_MAX_BYTES = 256 * MIB
"""Most bytes of what they send; a single call may always wait."""
_NOT_SENT = replace(
    transport_failure(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before it was sent"),
    definite=True,
)
SPREAD_MAX_S = 1.0
"""Deadlines in one batch are at most this far apart, because the earliest one ends the batch."""


@dataclass(frozen=True, slots=True)
class Form(Generic[I, A]):
    """How attempts are sent.

    Attributes:
        alone: sends one item that has no effect after a moment, in ms since 1970, within so many
            seconds.
        together: sends several items likewise, under a request_id if they have one; one answer per
            item, in order. Both raise AttemptFailedError.
        new_request_id: for items that are sent for the first time.
    """

    alone: Callable[[Item[I], int, float], Awaitable[A]]
    together: Callable[[Sequence[I], int, float, str | None], Awaitable[Sequence[BatchAnswer]]]
    new_request_id: Callable[[], str]


@dataclass(eq=False, slots=True)
class _Attempt(Generic[I]):
    """One attempt of one call.

    Attributes:
        not_after_ms: it has no effect afterwards, by the store's clock.
        ends_s: the call's deadline in the event loop's time.
        answer: a message with ``result`` and ``receipt``, or AttemptFailedError.
        size_bytes: of the item.
        waits: whether it is still in the queue.
    """

    item: Item[I]
    not_after_ms: int
    ends_s: float
    answer: asyncio.Future[Any]
    size_bytes: int
    waits: bool = True

    def fail(self, failure: Failure) -> None:
        if not self.answer.done():
            self.answer.set_exception(AttemptFailedError(failure))


class Coalescer(Generic[I, A]):
    """Coalesces the attempts of one RPC on one topic.

    Args:
        form: how they are sent.
        on_idle: called when nothing waits and nothing is on its way.
    """

    def __init__(self, form: Form[I, A], on_idle: Callable[[], None]) -> None:
        self._form = form
        self._on_idle = on_idle
        self._waiting: deque[_Attempt[I]] = deque()
        self._waiting_bytes = 0
        self._in_flight: set[asyncio.Task[None]] = set()
        self._woken = False
        self._timer: asyncio.TimerHandle | None = None

    def check_room(self) -> None:
        """Refuses a call while too many wait: the server does not keep up, and more would wait in
        vain. Those that were admitted may repeat.

        Raises:
            Overloaded: nothing was sent.
        """
        count, size_bytes = len(self._waiting), self._waiting_bytes
        if count >= WAITING_MAX_COUNT or size_bytes >= WAITING_MAX_BYTES:
            raise Overloaded(
                f"{count} calls of {size_bytes} bytes wait in this client already; the server does "
                "not keep up with them"
            )

    async def attempt(self, item: Item[I], not_after_ms: int, remaining_s: float) -> Any:
        """One attempt of a call.

        Args:
            not_after_ms: the attempt has no effect afterwards, in ms since 1970.

        Returns:
            A message that has ``result`` and ``receipt``: a reply, or a part of a batch's reply.

        Raises:
            AttemptFailedError: definite if the attempt had not been sent by its deadline.
        """
        loop = asyncio.get_running_loop()
        size_bytes = item.message.ByteSize()
        entry = _Attempt(
            item, not_after_ms, loop.time() + remaining_s, loop.create_future(), size_bytes
        )
        self._waiting.append(entry)
        self._waiting_bytes += size_bytes
        self._wake()
        if self._timer is None or entry.ends_s < self._timer.when():
            self._set_timer(entry.ends_s)
        try:
            return await entry.answer
        finally:
            # A caller that has gone takes nothing from the others, and its attempt is not sent.
            if entry.waits:
                self._waiting.remove(entry)
                self._leave(entry)

    def _leave(self, entry: _Attempt[I]) -> None:
        entry.waits = False
        self._waiting_bytes -= entry.size_bytes

    def _set_timer(self, at_s: float) -> None:
        """One timer for all that wait: one for each attempt would cost more than to send it."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(at_s, self._end_waits)

    def _end_waits(self) -> None:
        """Fails what waits past its deadline; a request that was sent ends by its own time-out."""
        self._timer = None
        now_s = asyncio.get_running_loop().time()
        for entry in self._waiting:
            if entry.ends_s <= now_s:
                entry.fail(replace(_NOT_SENT, error=_NOT_SENT.error.copy()))
        left_s = [entry.ends_s for entry in self._waiting if not entry.answer.done()]
        if left_s:
            self._set_timer(min(left_s))

    def _wake(self) -> None:
        """Sends what waits after the callers that run in this step of the event loop."""
        if not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._send_waiting)

    def _send_waiting(self) -> None:
        self._woken = False
        while self._waiting and len(self._in_flight) < IN_FLIGHT_MAX_COUNT:
            batch = self._take()
            if not batch:
                break
            self._name(batch)
            sending = asyncio.create_task(self._send(batch), name="ddq coalesced request")
            self._in_flight.add(sending)
            sending.add_done_callback(self._sent)
        if not self._waiting and not self._in_flight:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._on_idle()

    def _sent(self, sending: asyncio.Task[None]) -> None:
        self._in_flight.discard(sending)
        self._send_waiting()

    def _share_count(self) -> int:
        """How many attempts go into the next request, so that those that may be sent now get
        equally many.

        Callers whose request returns send their next attempts together. In one request, they would
        stay together: the client would do nothing while the server works, and the other way round.
        """
        count = len(self._waiting)
        requests = min(IN_FLIGHT_MAX_COUNT - len(self._in_flight), -(-count // SHARE_MIN_COUNT))
        return min(-(-count // requests), LIMITS.batch_max_items)

    def _take(self) -> list[_Attempt[I]]:
        """The oldest attempt and those behind it that fit into one request with it.

        A batch names no task twice; the second attempt waits for the next one. It has one
        request_id for all of its items, so a repeat is sent only with repeats of the same request.
        """
        batch: list[_Attempt[I]] = []
        left: list[_Attempt[I]] = []
        ids: set[str] = set()
        size_bytes = 0
        share_count = self._share_count()
        while self._waiting and len(batch) < share_count:
            entry = self._waiting.popleft()
            if entry.answer.done():
                # Its caller has gone, or got the error of a definite end, and has not run since.
                self._leave(entry)
                continue
            if batch and (
                entry.item.request_id != batch[0].item.request_id
                or entry.item.id in ids
                or size_bytes + entry.size_bytes > LIMITS.batch_max_bytes
                or abs(entry.ends_s - batch[0].ends_s) > SPREAD_MAX_S
            ):
                left.append(entry)
                continue
            self._leave(entry)
            batch.append(entry)
            ids.add(entry.item.id)
            size_bytes += entry.size_bytes
        self._waiting.extendleft(reversed(left))
        return batch

    def _name(self, batch: list[_Attempt[I]]) -> None:
        """Gives items that need a request_id and have none yet the one of this request."""
        if batch[0].item.request_id == "":
            request_id = self._form.new_request_id()
            for entry in batch:
                entry.item.request_id = request_id

    async def _send(self, batch: list[_Attempt[I]]) -> None:
        try:
            if len(batch) == 1:
                await self._send_alone(batch[0])
            else:
                await self._send_together(batch)
        except BaseException as error:
            # Whatever it is, each caller has to learn of it.
            for entry in batch:
                if not entry.answer.done():
                    entry.answer.set_exception(error)
            if not isinstance(error, Exception):
                raise

    async def _send_alone(self, entry: _Attempt[I]) -> None:
        try:
            answer = await self._form.alone(entry.item, entry.not_after_ms, _left_s(entry.ends_s))
        except AttemptFailedError as failed:
            entry.fail(failed.failure)
        else:
            if not entry.answer.done():
                entry.answer.set_result(answer)

    async def _send_together(self, batch: list[_Attempt[I]]) -> None:
        not_after_ms = min([entry.not_after_ms for entry in batch])
        try:
            answers = await self._form.together(
                [entry.item.message for entry in batch],
                not_after_ms,
                _left_s(min([entry.ends_s for entry in batch])),
                batch[0].item.request_id,
            )
        except AttemptFailedError as failed:
            if isinstance(failed.failure.error, InvalidArgument):
                # Of one of them, and the message names a position that its caller does not know.
                await asyncio.gather(*(self._send_alone(entry) for entry in batch))
                return
            for entry in batch:
                entry.fail(_for_one(failed.failure, entry, not_after_ms))
            return
        for entry, answer in zip(batch, answers, strict=True):
            if not is_ok(answer):
                entry.fail(_for_one(failure_of_status(answer.status), entry, not_after_ms))
            elif not entry.answer.done():
                entry.answer.set_result(answer)


def _for_one(failure: Failure, entry: _Attempt[Any], not_after_ms: int) -> Failure:
    """A failure of a batch as one of its calls has to take it."""
    failure = replace(failure, error=failure.error.copy())
    if isinstance(failure.error, RequestExpired) and entry.not_after_ms > not_after_ms:
        # It was another call's time that was over.
        return replace(failure, repeatable=True)
    return failure


def _left_s(ends_s: float) -> float:
    return max(0.001, ends_s - asyncio.get_running_loop().time())
