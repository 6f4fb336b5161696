"""From the client library's values to those of a history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from chaos.history.operations import (
    Cancelled,
    Counts,
    Enqueue,
    Enqueued,
    Extended,
    Lease,
    Listed,
    ListedTask,
    Nacked,
    OnConflict,
    RanAgain,
    Rescheduled,
    RetrySettings,
    Seen,
    Settled,
    Snoozed,
    State,
    Stats,
    Value,
    digest,
)
from ddq import client as ddq

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


class Batch(Value):
    """The items of a batch, or their results."""

    items: Sequence[Any]


def of_batch(items: Sequence[Any]) -> Value:
    """Several as one."""
    return Batch(items)


def ms(moment: datetime | timedelta | None) -> int | None:
    """Whole ms, since 1970 for a point in time; rounded up, as the server does it."""
    if moment is None:
        return None
    span = moment - _EPOCH if isinstance(moment, datetime) else moment
    return -(-span // _MS)


def state_name(state: ddq.TaskState) -> State:
    """As in the journal."""
    return cast("State", state.name.lower())


def stamp(revision: int, receipt: ddq.Receipt) -> dict[str, Any]:
    """The fields that every reply has."""
    return {
        "revision": revision,
        "store_ms": ms(receipt.store_time) or 0,
        "lineage": receipt.lineage_id.hex(),
        "durability": receipt.durability.name.lower() if receipt.durability else "",
        "replicas_acked": receipt.replicas_acked,
    }


def policy(given: ddq.RetryPolicy | None) -> RetrySettings | None:
    """A retry policy; None stays None."""
    if given is None:
        return None
    return RetrySettings(
        given.max_attempts,
        ms(given.initial_backoff),
        ms(given.max_backoff),
        given.multiplier,
        given.jitter,
    )


def content(payload: bytes, headers: Mapping[str, str]) -> str:
    """A short text that stands for what a task carries: its payload and its headers."""
    text = digest(payload)
    return f"{text} {sorted(headers.items())}" if headers else text


def new_task(topic: str, task: ddq.NewTask) -> Enqueue:
    """A task as it is sent.

    Raises:
        ValueError: it has no id.
    """
    if task.id is None:
        raise ValueError("a task in a history needs an id: its reply may be lost")
    return Enqueue(
        topic,
        task.id,
        content(task.payload, task.headers),
        ms(task.delay),
        ms(task.due),
        cast("OnConflict", _ON_CONFLICT[task.on_conflict]),
        task.expected_revision,
        policy(task.retry_policy),
        ms(task.debounce_limit),
    )


def enqueue_request(given: SimpleNamespace) -> Enqueue:
    """The arguments of ``Client.enqueue``, as a task that is sent.

    Raises:
        ValueError: it has no id.
    """
    return new_task(
        given.topic,
        ddq.NewTask(
            given.payload,
            given.task_id,
            headers=given.headers or {},
            delay=given.delay,
            due=given.due,
            retry_policy=given.retry_policy,
            on_conflict=given.on_conflict,
            expected_revision=given.expected_revision,
            debounce_limit=given.debounce_limit,
        ),
    )


_ON_CONFLICT = {
    ddq.OnConflict.FAIL: "fail",
    ddq.OnConflict.RETURN_EXISTING: "existing",
    ddq.OnConflict.REPLACE_IF_SCHEDULED: "replace_scheduled",
    ddq.OnConflict.REPLACE_IF_FINISHED: "replace_finished",
    ddq.OnConflict.DEBOUNCE: "debounce",
}


def lease_value(lease: ddq.Lease) -> Lease:
    """A lease as a worker got it."""
    task = lease.task
    return Lease(
        **stamp(task.revision, lease.receipt),
        topic=lease.topic,
        id=lease.id,
        token=lease.token.hex(),
        payload=content(lease.payload, task.headers),
        incarnation=task.incarnation,
        promotion=task.promotion,
        attempt=task.attempt,
        run=task.run,
        due_ms=ms(task.due_time) or 0,
        expire_ms=ms(lease.expire_time) or 0,
        policy=policy(task.retry_policy),
    )


def seen_value(task: ddq.Task) -> Seen:
    """A task as it was."""
    return Seen(
        revision=task.revision,
        state=state_name(task.state),
        payload=None if task.payload is None else content(task.payload, task.headers),
        incarnation=task.incarnation,
        promotion=task.promotion,
        attempt=task.attempt,
        run=task.run,
        due_ms=ms(task.due_time) or 0,
        expire_ms=ms(task.lease_expire_time) or 0,
    )


def listed(tasks: Sequence[ddq.Task]) -> Listed:
    """Tasks as they were."""
    return Listed(
        [ListedTask(id=task.id, **msgspec.structs.asdict(seen_value(task))) for task in tasks]
    )


def counts_value(counts: ddq.TaskCounts) -> Counts:
    """A shard's count."""
    return Counts(
        **{name: getattr(counts, name) for name in Counts.__struct_fields__},
    )


def stats_value(stats: ddq.TopicStats) -> Stats:
    """A topic's count, shard by shard."""
    return Stats([counts_value(shard.counts) for shard in stats.shards])


def enqueued(done: ddq.Enqueued) -> Enqueued:
    """The reply to an enqueue."""
    return Enqueued(
        **stamp(done.revision, done.receipt),
        created=done.created,
        state=state_name(done.state),
        incarnation=done.incarnation,
        due_ms=ms(done.due_time) or 0,
    )


def cancelled(done: ddq.Cancelled) -> Cancelled:
    """The reply to a cancel."""
    return Cancelled(
        **stamp(done.revision, done.receipt),
        incarnation=done.incarnation,
        already=done.already_cancelled,
    )


def rescheduled(done: ddq.Rescheduled) -> Rescheduled:
    """The reply to a reschedule."""
    return Rescheduled(**stamp(done.revision, done.receipt), due_ms=ms(done.due_time) or 0)


def settled(done: ddq.Acked | ddq.Released | ddq.DeadDeleted) -> Settled:
    """The reply to an ack, a release, or a deletion of a dead task."""
    return Settled(**stamp(done.revision, done.receipt))


def ran_again(done: ddq.RanAgain) -> RanAgain:
    """The reply to a run_again."""
    return RanAgain(
        **stamp(done.revision, done.receipt),
        incarnation=done.incarnation,
        due_ms=ms(done.due_time) or 0,
    )


def nacked(done: ddq.Nacked) -> Nacked:
    """The reply to a nack."""
    return Nacked(
        **stamp(done.revision, done.receipt),
        state=state_name(done.state),
        due_ms=ms(done.due_time) or 0,
    )


def extended(done: ddq.Extended) -> Extended:
    """The reply to an extend."""
    return Extended(**stamp(done.revision, done.receipt), expire_ms=ms(done.expire_time) or 0)


def snoozed(done: ddq.Snoozed) -> Snoozed:
    """The reply to a snooze."""
    return Snoozed(**stamp(done.revision, done.receipt), due_ms=ms(done.due_time) or 0)
