"""Batches: one result an item, and only the items whose outcome is open are sent again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2

from ddq.client.repeat import History, Repeater
from ddq.client.rpcs import Rpc
from ddq.client.status import AttemptFailedError, failure_of_status
from ddq.client.storetime import Asked, StoreTime
from ddq.client.values import ItemResult
from ddq.config import LIMITS
from ddq.errors import DdqError, RequestExpired


class BatchAnswer(Protocol):
    """One item of a batch's reply."""

    @property
    def status(self) -> status_pb2.Status: ...


I = TypeVar("I", bound=Message)  # noqa: E741 - an item of a request
B = TypeVar("B", bound=BatchAnswer)
V = TypeVar("V")

_OK_CODE = grpc.StatusCode.OK.value[0]


def is_ok(answer: BatchAnswer) -> bool:
    """Whether the reply about one item is its result, and not an error."""
    return bool(answer.status.code == _OK_CODE)


@dataclass(slots=True)
class Item(Generic[I]):
    """What is sent about one task.

    Attributes:
        request_id: of the request that it was first sent in, under which the store knows a repeat
            of it; empty before that; None: the store knows a repeat by the task's id or token.
    """

    topic: str
    id: str
    message: I
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class BatchOutcome(Generic[V]):
    """One result an item; ``answered`` if any reply had come that spoke of the items."""

    results: list[ItemResult[V]]
    answered: bool


def split(items: Sequence[Item[I]]) -> Iterator[list[tuple[int, Item[I]]]]:
    """Items with their positions, in batches of one topic that a server accepts."""
    by_topic: dict[str, list[tuple[int, Item[I]]]] = {}
    for index, item in enumerate(items):
        by_topic.setdefault(item.topic, []).append((index, item))
    for group in by_topic.values():
        batch: list[tuple[int, Item[I]]] = []
        batch_bytes = 0
        for index, item in group:
            size_bytes = item.message.ByteSize()
            full = (
                len(batch) == LIMITS.batch_max_items
                or batch_bytes + size_bytes > LIMITS.batch_max_bytes
            )
            if batch and full:
                yield batch
                batch, batch_bytes = [], 0
            batch.append((index, item))
            batch_bytes += size_bytes
        yield batch


class DatedExchange(Generic[I, B]):
    """Sends some items of a batch, dated again where this machine's clock proves wrong.

    Args:
        send: sends items with a ``not_after``, in ms since 1970, within so many seconds; raises
            AttemptFailedError.
        date_ms: the ``not_after`` by what is known of the store's clock now.
    """

    def __init__(
        self,
        store_time: StoreTime,
        send: Callable[[Sequence[I], int, float], Awaitable[Sequence[B]]],
        date_ms: Callable[[], int],
    ) -> None:
        self._store_time = store_time
        self._send = send
        self._date_ms = date_ms
        self._not_after_ms = date_ms()
        self._may_have_acted = False

    async def __call__(self, items: Sequence[I], remaining_s: float) -> Sequence[B]:
        asked = self._store_time.asked()
        try:
            answers = list(await self._send(items, self._not_after_ms, remaining_s))
        except AttemptFailedError as attempt:
            self._may_have_acted = self._may_have_acted or not attempt.failure.definite
            if not self._learned(attempt.failure.error, asked):
                raise
            return await self._send(items, self._not_after_ms, remaining_s)
        codes = [answer.status.code for answer in answers]
        if not any(codes):
            # As nearly always; OK is 0.
            return answers
        failures = [
            None if is_ok(answer) else failure_of_status(answer.status) for answer in answers
        ]
        late = [
            index
            for index, failure in enumerate(failures)
            if failure is not None and isinstance(failure.error, RequestExpired)
        ]
        if any(failure is not None and self._learned(failure.error, asked) for failure in failures):
            again = await self._send(
                [items[index] for index in late], self._not_after_ms, remaining_s
            )
            for index, answer in zip(late, again, strict=True):
                answers[index] = answer
        if any(failure is not None and not failure.definite for failure in failures):
            self._may_have_acted = True
        return answers

    def _learned(self, error: DdqError, asked: Asked) -> bool:
        # Another date makes another request of it, which is safe as long as no attempt of the first
        # can have had an effect.
        if not self._store_time.learn_from(error, asked) or self._may_have_acted:
            return False
        self._not_after_ms = self._date_ms()
        return True


async def run_batch(
    repeater: Repeater,
    rpc: Rpc,
    items: Sequence[Item[I]],
    *,
    exchange: Callable[[Sequence[I], float], Awaitable[Sequence[B]]],
    read: Callable[[B], V],
    deadline_s: float,
    on_result: Callable[[int, ItemResult[V]], None] | None = None,
) -> BatchOutcome[V]:
    """Sends one batch, and again what is left of it, until every item has a result.

    Args:
        exchange: sends some of the items within so many seconds; raises AttemptFailedError.
        read: the value of an item that is OK.
        deadline_s: in monotonic time.
        on_result: called with the position of an item and its result as soon as that is known.
    """
    histories: dict[int, History] = {}
    results: dict[int, ItemResult[V]] = {}
    answered = False

    def has_result(index: int, result: ItemResult[V]) -> None:
        results[index] = result
        if on_result is not None:
            on_result(index, result)

    def failed(index: int, error: DdqError | None) -> None:
        if error is not None:
            has_result(index, ItemResult(items[index].id, error=error))

    def history(index: int) -> History:
        # Made when an item fails, as few do.
        if index not in histories:
            item = items[index]
            histories[index] = History(rpc, f"{rpc.name} {item.topic}/{item.id}")
        return histories[index]

    waiting = list(range(len(items)))
    while waiting:
        try:
            answers = await exchange(
                [items[index].message for index in waiting], repeater.remaining_s(deadline_s)
            )
        except AttemptFailedError as attempt:
            for index in waiting:
                failed(index, history(index).record(attempt.failure))
        else:
            answered = True
            for index, answer in zip(waiting, answers, strict=True):
                # As is_ok has it, without a call for each item.
                if answer.status.code == _OK_CODE:
                    has_result(index, ItemResult(items[index].id, value=read(answer)))
                else:
                    failed(index, history(index).record(failure_of_status(answer.status)))
        waiting = [index for index in waiting if index not in results]
        if not waiting:
            break
        attempts = max(histories[index].attempts for index in waiting)
        asked_s = max((histories[index].asked_s or 0.0) for index in waiting)
        if not await repeater.pause(attempts, asked_s, deadline_s):
            for index in waiting:
                failed(index, history(index).give_up())
            break
    return BatchOutcome([results[index] for index in range(len(items))], answered)
