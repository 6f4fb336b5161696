"""The client's side of a queue that is a few lists, for a worker."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Self

from ddq import errors
from ddq.client import (
    Acked,
    Extended,
    ItemResult,
    Lease,
    LeaseRef,
    LeaseStream,
    Nacked,
    RanAgain,
    Receipt,
    Released,
    Snoozed,
    StreamCall,
    Task,
    TaskState,
)

RECEIPT = Receipt(None, 0, b"", None)
LEASE = timedelta(milliseconds=300)


def lease(
    task_id: str,
    *,
    span: timedelta = LEASE,
    due: datetime | None = None,
    store_time: datetime | None = None,
) -> Lease:
    task = Task(
        topic="mail",
        id=task_id,
        state=TaskState.LEASED,
        payload=task_id.encode(),
        headers={},
        revision=1,
        incarnation=1,
        promotion=1,
        attempt=1,
        run=1,
        create_time=None,
        due_time=due,
        update_time=None,
        lease_expire_time=None,
        retry_policy=None,
        last_error="",
        payload_size_bytes=len(task_id),
    )
    return Lease(
        topic="mail",
        id=task_id,
        token=b"token",
        task=task,
        expire_time=None,
        remaining=span,
        receipt=Receipt(None, 0, b"", store_time),
    )


class Signal:
    """An event of the test's loop that the worker's thread may set."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def set(self) -> None:
        self._loop.call_soon_threadsafe(self._event.set)

    def clear(self) -> None:
        self._event.clear()

    async def wait(self) -> None:
        await self._event.wait()


class FakeQueue:
    """Grants what is in ``ready`` and writes down what is said to it, from the worker's thread."""

    def __init__(self, *ready: Lease) -> None:
        self.ready = list(ready)
        self.retrieves: list[dict[str, Any]] = []
        self.retrieve_errors: list[errors.DdqError] = []
        self.said: list[tuple[str, str]] = []
        self.nacks: list[dict[str, Any]] = []
        self.snoozes: list[timedelta] = []
        self.snooze_error: errors.DdqError | None = None
        self.planned: list[dict[str, Any]] = []
        self.run_again_error: errors.DdqError | None = None
        self.waiting = Signal()
        self.failed = Signal()
        self.released = Signal()
        self.extends = 0
        self.extended = Signal()
        self.extend_error: errors.DdqError | None = None
        self.end_error: errors.DdqError | None = None
        self.ending: Signal | None = None
        self.next_state = TaskState.SCHEDULED

    def duplicate(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def stream_retrieve(self, topics: Sequence[str], **options: Any) -> LeaseStream:
        return LeaseStream(self, topics, lambda: secrets.token_hex(8), **options)

    async def open_stream(self) -> StreamCall:
        raise errors.Unimplemented("this queue knows Retrieve only")

    async def retrieve(
        self,
        topics: str | Sequence[str],
        *,
        request_id: str | None = None,
        max_tasks: int = 1,
        lease: timedelta | None = None,
        wait: timedelta | None = None,
        timeout_s: float | None = None,
    ) -> list[Lease]:
        self.retrieves.append({"max_tasks": max_tasks, "wait": wait, "request_id": request_id})
        if self.retrieve_errors:
            self.failed.set()
            raise self.retrieve_errors.pop(0)
        if not self.ready and wait is not None:
            self.waiting.set()
            await asyncio.sleep(wait.total_seconds())
        granted, self.ready = self.ready[:max_tasks], self.ready[max_tasks:]
        return granted

    async def _end(self, verb: str, ref: LeaseRef) -> None:
        if self.ending is not None:
            self.ending.set()
            await asyncio.Event().wait()
        self.said.append((verb, ref.id))
        if self.end_error is not None:
            raise self.end_error

    async def ack(self, ref: LeaseRef, *, timeout_s: float | None = None) -> Acked:
        await self._end("ack", ref)
        return Acked(2, RECEIPT)

    async def ack_batch(
        self,
        refs: Sequence[LeaseRef],
        *,
        timeout_s: float | None = None,
        on_result: Callable[[int, ItemResult[Acked]], None],
    ) -> list[ItemResult[Acked]]:
        results: list[ItemResult[Acked]] = []
        for index, ref in enumerate(refs):
            result: ItemResult[Acked]
            try:
                result = ItemResult(ref.id, await self.ack(ref, timeout_s=timeout_s))
            except errors.DdqError as error:
                result = ItemResult(ref.id, error=error)
            on_result(index, result)
            results.append(result)
        return results

    async def run_again(self, ref: LeaseRef, **planned: Any) -> RanAgain:
        self.planned.append(planned)
        if self.run_again_error is not None:
            raise self.run_again_error
        await self._end("run_again", ref)
        return RanAgain(3, 3, None, RECEIPT)

    async def snooze(
        self, ref: LeaseRef, delay: timedelta, *, timeout_s: float | None = None
    ) -> Snoozed:
        self.snoozes.append(delay)
        if self.snooze_error is not None:
            raise self.snooze_error
        await self._end("snooze", ref)
        return Snoozed(None, 2, RECEIPT)

    async def nack(self, ref: LeaseRef, **verdict: Any) -> Nacked:
        await self._end("nack", ref)
        self.nacks.append(verdict)
        return Nacked(self.next_state, 2, None, RECEIPT)

    async def extend(
        self, ref: LeaseRef, duration: timedelta, *, timeout_s: float | None = None
    ) -> Extended:
        self.extends += 1
        self.extended.set()
        if self.extend_error is not None:
            raise self.extend_error
        return Extended(None, duration, 2, RECEIPT)

    async def extend_batch(
        self, refs: Sequence[LeaseRef], duration: timedelta, *, timeout_s: float | None = None
    ) -> list[ItemResult[Extended]]:
        results: list[ItemResult[Extended]] = []
        for ref in refs:
            try:
                results.append(
                    ItemResult(ref.id, await self.extend(ref, duration, timeout_s=timeout_s))
                )
            except errors.DdqError as error:
                results.append(ItemResult(ref.id, error=error))
        return results

    async def release_batch(
        self, leases: Sequence[LeaseRef], *, timeout_s: float | None = None
    ) -> list[ItemResult[Released]]:
        self.said += [("release", ref.id) for ref in leases]
        self.released.set()
        return [ItemResult(ref.id, Released(2, RECEIPT)) for ref in leases]

    async def release(self, ref: LeaseRef, *, timeout_s: float | None = None) -> Released:
        await self._end("release", ref)
        self.released.set()
        return Released(2, RECEIPT)
