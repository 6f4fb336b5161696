"""A client that records each request and its reply.

    async with Client(address) as client:
        worker = Recorder(writer, client, "3")
        for lease in await worker.retrieve("mail"):
            await worker.ack(lease)

Whether an error means "it did not happen" is the error's own property, ``definite``. Anything else,
a cancelled call included, is ``info``: the operation may take effect at any later time, so what
this recorder does next is a new process's (3, 3.1, 3.2, ...), as in Jepsen.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from chaos.history.convert import (
    lease_value,
    ms,
    new_task,
    of_batch,
    seen_value,
    stamp,
    state_name,
    stats_value,
)
from chaos.history.operations import (
    READS,
    Cancel,
    Cancelled,
    Counted,
    DeleteDead,
    Enqueued,
    Extend,
    Extended,
    Failed,
    Get,
    Nack,
    Nacked,
    RanAgain,
    Redrive,
    Reschedule,
    Rescheduled,
    Retrieve,
    Retrieved,
    RunAgain,
    Settle,
    Settled,
    Snooze,
    Snoozed,
    Topic,
    Value,
    digest,
)
from chaos.history.reader import Type
from chaos.history.writer import HistoryWriter
from ddq import client as ddq
from ddq.client import Client
from ddq.errors import DdqError

V = TypeVar("V")


class Recorder:
    """One logical process: it does one thing at a time.

    Every method is the client's method of that name, with its results and errors.

    Args:
        process: its number or name, without a dot.
    """

    def __init__(self, writer: HistoryWriter, client: Client, process: str) -> None:
        self._writer = writer
        self._client = client
        self._name = process
        self._lives = 0
        self._busy = False
        self.unknowns = 0

    @property
    def process(self) -> str:
        """The name it has at present."""
        return f"{self._name}.{self._lives}" if self._lives else self._name

    async def _record(
        self, op: str, request: Value, call: Awaitable[V], reply: Callable[[V], Value]
    ) -> V:
        if self._busy:
            raise RuntimeError(f"process {self.process} is asked for {op} while it does another")
        self._busy = True
        self._writer.event(self.process, "invoke", op, request=request)
        try:
            value = await call
        except DdqError as error:
            certain = error.definite or op in READS
            self._end("fail" if certain else "info", op, Failed(error.reason, str(error)[:200]))
            raise
        except BaseException as error:
            # A worker that is cut off in the middle leaves a request behind it.
            self._end("info", op, Failed("CUT_OFF", type(error).__name__))
            raise
        finally:
            self._busy = False
        self._end("ok", op, reply(value))
        return value

    def _end(self, outcome: Type, op: str, reply: Value) -> None:
        self._writer.event(self.process, outcome, op, reply=reply)
        if outcome == "info":
            self._lives += 1
            self.unknowns += 1

    # Producers -------------------------------------------------------------------------------

    async def enqueue(
        self, topic: str, task: ddq.NewTask, *, timeout_s: float | None = None
    ) -> ddq.Enqueued:
        """As Client.enqueue; the task must have an id, else a lost reply leaves it nameless."""
        return await self._record(
            "enqueue",
            new_task(topic, task),
            self._client.enqueue(
                topic,
                task.payload,
                task_id=task.id,
                headers=task.headers,
                delay=task.delay,
                due=task.due,
                retry_policy=task.retry_policy,
                on_conflict=task.on_conflict,
                expected_revision=task.expected_revision,
                debounce_limit=task.debounce_limit,
                timeout_s=timeout_s,
            ),
            _enqueued,
        )

    async def enqueue_batch(
        self, topic: str, tasks: Sequence[ddq.NewTask], *, timeout_s: float | None = None
    ) -> list[ddq.ItemResult[ddq.Enqueued]]:
        """As Client.enqueue_batch."""
        return await self._batch(
            "enqueue",
            [new_task(topic, task) for task in tasks],
            self._client.enqueue_batch(topic, tasks, timeout_s=timeout_s),
            _enqueued,
        )

    async def cancel(
        self, topic: str, task_id: str, *, revoke: bool = False, timeout_s: float | None = None
    ) -> ddq.Cancelled:
        """As Client.cancel."""
        return await self._record(
            "cancel",
            Cancel(topic, task_id, revoke),
            self._client.cancel(topic, task_id, revoke_lease=revoke, timeout_s=timeout_s),
            _cancelled,
        )

    async def cancel_batch(
        self,
        topic: str,
        task_ids: Sequence[str],
        *,
        revoke: bool = False,
        timeout_s: float | None = None,
    ) -> list[ddq.ItemResult[ddq.Cancelled]]:
        """As Client.cancel_batch."""
        return await self._batch(
            "cancel",
            [Cancel(topic, task_id, revoke) for task_id in task_ids],
            self._client.cancel_batch(topic, task_ids, revoke_lease=revoke, timeout_s=timeout_s),
            _cancelled,
        )

    async def reschedule(
        self,
        topic: str,
        task_id: str,
        *,
        delay: timedelta | None = None,
        due: datetime | None = None,
        expected_revision: int | None = None,
        timeout_s: float | None = None,
    ) -> ddq.Rescheduled:
        """As Client.reschedule."""
        return await self._record(
            "reschedule",
            Reschedule(topic, task_id, ms(delay), ms(due), expected_revision),
            self._client.reschedule(
                topic,
                task_id,
                delay=delay,
                due=due,
                expected_revision=expected_revision,
                timeout_s=timeout_s,
            ),
            lambda done: Rescheduled(
                **stamp(done.revision, done.receipt), due_ms=ms(done.due_time) or 0
            ),
        )

    async def get(self, topic: str, task_id: str, *, timeout_s: float | None = None) -> ddq.Task:
        """As Client.get_task."""
        return await self._record(
            "get",
            Get(topic, task_id),
            self._client.get_task(topic, task_id, timeout_s=timeout_s),
            seen_value,
        )

    # Workers ---------------------------------------------------------------------------------

    async def retrieve(
        self,
        topics: str | Sequence[str],
        *,
        max_tasks: int = 1,
        lease: timedelta | None = None,
        wait: timedelta | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> list[ddq.Lease]:
        """As Client.retrieve; its request_id is always written down."""
        names = [topics] if isinstance(topics, str) else list(topics)
        request_id = request_id or secrets.token_hex(8)
        return await self._record(
            "retrieve",
            Retrieve(names, request_id, max_tasks, ms(lease), ms(wait) or 0),
            self._client.retrieve(
                names,
                max_tasks=max_tasks,
                lease=lease,
                wait=wait,
                request_id=request_id,
                timeout_s=timeout_s,
            ),
            lambda leases: Retrieved([lease_value(lease) for lease in leases]),
        )

    async def ack(self, lease: ddq.LeaseRef, *, timeout_s: float | None = None) -> ddq.Acked:
        """As Client.ack."""
        return await self._record(
            "ack", _settle(lease), self._client.ack(lease, timeout_s=timeout_s), _settled
        )

    async def ack_batch(
        self, leases: Sequence[ddq.LeaseRef], *, timeout_s: float | None = None
    ) -> list[ddq.ItemResult[ddq.Acked]]:
        """As Client.ack_batch."""
        return await self._batch(
            "ack",
            [_settle(lease) for lease in leases],
            self._client.ack_batch(leases, timeout_s=timeout_s),
            _settled,
        )

    async def run_again(
        self,
        lease: ddq.LeaseRef,
        *,
        delay: timedelta | None = None,
        payload: bytes | None = None,
        timeout_s: float | None = None,
    ) -> ddq.RanAgain:
        """As Client.run_again."""
        request = RunAgain(
            lease.topic, lease.id, lease.token.hex(), ms(delay), None,
            None if payload is None else digest(payload),
        )  # fmt: skip
        return await self._record(
            "run_again",
            request,
            self._client.run_again(lease, delay=delay, payload=payload, timeout_s=timeout_s),
            lambda done: RanAgain(
                **stamp(done.revision, done.receipt),
                incarnation=done.incarnation,
                due_ms=ms(done.due_time) or 0,
            ),
        )

    async def nack(
        self,
        lease: ddq.LeaseRef,
        *,
        error: str = "",
        delay: timedelta | None = None,
        dead_letter: bool = False,
        timeout_s: float | None = None,
    ) -> ddq.Nacked:
        """As Client.nack."""
        return await self._record(
            "nack",
            Nack(lease.topic, lease.id, lease.token.hex(), ms(delay), dead_letter),
            self._client.nack(
                lease, error=error, delay=delay, dead_letter=dead_letter, timeout_s=timeout_s
            ),
            _nacked,
        )

    async def nack_batch(
        self,
        leases: Sequence[ddq.LeaseRef],
        *,
        error: str = "",
        delay: timedelta | None = None,
        dead_letter: bool = False,
        timeout_s: float | None = None,
    ) -> list[ddq.ItemResult[ddq.Nacked]]:
        """As Client.nack_batch."""
        return await self._batch(
            "nack",
            [
                Nack(lease.topic, lease.id, lease.token.hex(), ms(delay), dead_letter)
                for lease in leases
            ],
            self._client.nack_batch(
                leases, error=error, delay=delay, dead_letter=dead_letter, timeout_s=timeout_s
            ),
            _nacked,
        )

    async def extend(
        self,
        lease: ddq.LeaseRef,
        duration: timedelta | None = None,
        *,
        timeout_s: float | None = None,
    ) -> ddq.Extended:
        """As Client.extend."""
        return await self._record(
            "extend",
            Extend(lease.topic, lease.id, lease.token.hex(), ms(duration)),
            self._client.extend(lease, duration, timeout_s=timeout_s),
            _extended,
        )

    async def extend_batch(
        self,
        leases: Sequence[ddq.LeaseRef],
        duration: timedelta | None = None,
        *,
        timeout_s: float | None = None,
    ) -> list[ddq.ItemResult[ddq.Extended]]:
        """As Client.extend_batch."""
        return await self._batch(
            "extend",
            [Extend(lease.topic, lease.id, lease.token.hex(), ms(duration)) for lease in leases],
            self._client.extend_batch(leases, duration, timeout_s=timeout_s),
            _extended,
        )

    async def release(self, lease: ddq.LeaseRef, *, timeout_s: float | None = None) -> ddq.Released:
        """As Client.release."""
        return await self._record(
            "release", _settle(lease), self._client.release(lease, timeout_s=timeout_s), _settled
        )

    async def release_batch(
        self, leases: Sequence[ddq.LeaseRef], *, timeout_s: float | None = None
    ) -> list[ddq.ItemResult[ddq.Released]]:
        """As Client.release_batch."""
        return await self._batch(
            "release",
            [_settle(lease) for lease in leases],
            self._client.release_batch(leases, timeout_s=timeout_s),
            _settled,
        )

    async def snooze(
        self, lease: ddq.LeaseRef, delay: timedelta, *, timeout_s: float | None = None
    ) -> ddq.Snoozed:
        """As Client.snooze."""
        return await self._record(
            "snooze",
            Snooze(lease.topic, lease.id, lease.token.hex(), ms(delay) or 0),
            self._client.snooze(lease, delay, timeout_s=timeout_s),
            lambda done: Snoozed(
                **stamp(done.revision, done.receipt), due_ms=ms(done.due_time) or 0
            ),
        )

    # Operators -------------------------------------------------------------------------------

    async def redrive(
        self, topic: str, task_ids: Sequence[str] = (), *, timeout_s: float | None = None
    ) -> ddq.Redriven:
        """As Client.redrive."""
        return await self._record(
            "redrive",
            Redrive(topic, list(task_ids)),
            self._client.redrive(topic, task_ids, timeout_s=timeout_s),
            lambda done: Counted(done.count),
        )

    async def delete_dead(
        self, topic: str, task_id: str, *, timeout_s: float | None = None
    ) -> ddq.DeadDeleted:
        """As Client.delete_dead."""
        return await self._record(
            "delete_dead",
            DeleteDead(topic, task_id),
            self._client.delete_dead(topic, task_id, timeout_s=timeout_s),
            lambda done: Settled(**stamp(done.revision, done.receipt)),
        )

    async def purge_topic(self, topic: str, *, timeout_s: float | None = None) -> int:
        """As Client.purge_topic."""
        return await self._record(
            "purge",
            Topic(topic),
            self._client.purge_topic(topic, timeout_s=timeout_s),
            Counted,
        )

    async def pause_topic(self, topic: str, *, timeout_s: float | None = None) -> ddq.Topic:
        """As Client.pause_topic."""
        return await self._record(
            "pause",
            Topic(topic),
            self._client.pause_topic(topic, timeout_s=timeout_s),
            lambda _: Value(),
        )

    async def resume_topic(self, topic: str, *, timeout_s: float | None = None) -> ddq.Topic:
        """As Client.resume_topic."""
        return await self._record(
            "resume",
            Topic(topic),
            self._client.resume_topic(topic, timeout_s=timeout_s),
            lambda _: Value(),
        )

    async def stats(self, topic: str, *, timeout_s: float | None = None) -> ddq.TopicStats:
        """As Client.stats."""
        return await self._record(
            "stats",
            Topic(topic),
            self._client.stats(topic, timeout_s=timeout_s),
            stats_value,
        )

    async def _batch(
        self,
        op: str,
        items: Sequence[Value],
        call: Awaitable[list[ddq.ItemResult[V]]],
        reply: Callable[[V], Value],
    ) -> list[ddq.ItemResult[V]]:
        results = await self._record(
            f"{op}_batch",
            of_batch(items),
            call,
            lambda results: of_batch([_item(result, reply) for result in results]),
        )
        if any(result.error is not None and not result.error.definite for result in results):
            # Part of it may take effect later: what follows is another process's.
            self._lives += 1
            self.unknowns += 1
        return results


def _item(result: ddq.ItemResult[V], reply: Callable[[V], Value]) -> dict[str, Any]:
    if result.error is not None:
        return {
            "type": "fail" if result.error.definite else "info",
            "error": result.error.reason,
            "message": str(result.error)[:200],
        }
    return {"type": "ok", "reply": reply(result.unwrap())}


def _settle(lease: ddq.LeaseRef) -> Settle:
    return Settle(lease.topic, lease.id, lease.token.hex())


def _enqueued(done: ddq.Enqueued) -> Enqueued:
    return Enqueued(
        **stamp(done.revision, done.receipt),
        created=done.created,
        state=state_name(done.state),
        incarnation=done.incarnation,
        due_ms=ms(done.due_time) or 0,
    )


def _cancelled(done: ddq.Cancelled) -> Cancelled:
    return Cancelled(
        **stamp(done.revision, done.receipt),
        incarnation=done.incarnation,
        already=done.already_cancelled,
    )


def _settled(done: ddq.Acked | ddq.Released) -> Settled:
    return Settled(**stamp(done.revision, done.receipt))


def _nacked(done: ddq.Nacked) -> Nacked:
    return Nacked(
        **stamp(done.revision, done.receipt),
        state=state_name(done.state),
        due_ms=ms(done.due_time) or 0,
    )


def _extended(done: ddq.Extended) -> Extended:
    return Extended(**stamp(done.revision, done.receipt), expire_ms=ms(done.expire_time) or 0)


__all__ = ["Recorder"]
