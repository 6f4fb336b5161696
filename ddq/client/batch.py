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
from ddq.client.values import ItemResult
from ddq.config import LIMITS
from ddq.errors import DdqError


class BatchAnswer(Protocol):
    """One item of a batch's reply."""

    @property
    def status(self) -> status_pb2.Status: ...


I = TypeVar("I", bound=Message)  # noqa: E741 - an item of a request
B = TypeVar("B", bound=BatchAnswer)
V = TypeVar("V")

_OK = grpc.StatusCode.OK.value[0]


@dataclass(frozen=True, slots=True)
class Item(Generic[I]):
    """What is sent about one task."""

    topic: str
    id: str
    message: I


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


async def run_batch(
    repeater: Repeater,
    rpc: Rpc,
    items: Sequence[Item[I]],
    *,
    exchange: Callable[[Sequence[I], float], Awaitable[Sequence[B]]],
    read: Callable[[B], V],
    deadline_s: float,
) -> BatchOutcome[V]:
    """Sends one batch, and again what is left of it, until every item has a result.

    Args:
        exchange: sends some of the items within so many seconds; raises AttemptFailedError.
        read: the value of an item that is OK.
        deadline_s: in monotonic time.
    """
    histories = [History(rpc, f"{rpc.name} {item.topic}/{item.id}") for item in items]
    results: dict[int, ItemResult[V]] = {}
    answered = False

    def failed(index: int, error: DdqError | None) -> None:
        if error is not None:
            results[index] = ItemResult(items[index].id, error=error)

    waiting = list(range(len(items)))
    while waiting:
        try:
            answers = await exchange(
                [items[index].message for index in waiting], repeater.remaining_s(deadline_s)
            )
        except AttemptFailedError as attempt:
            for index in waiting:
                failed(index, histories[index].record(attempt.failure))
        else:
            answered = True
            for index, answer in zip(waiting, answers, strict=True):
                if answer.status.code == _OK:
                    results[index] = ItemResult(items[index].id, value=read(answer))
                else:
                    failed(index, histories[index].record(failure_of_status(answer.status)))
        waiting = [index for index in waiting if index not in results]
        if not waiting:
            break
        attempts = max(histories[index].attempts for index in waiting)
        asked_s = max((histories[index].asked_s or 0.0) for index in waiting)
        if not await repeater.pause(attempts, asked_s, deadline_s):
            for index in waiting:
                failed(index, histories[index].give_up())
            break
    return BatchOutcome([results[index] for index in range(len(items))], answered)
