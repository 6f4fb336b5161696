"""From the client library's values to those of a history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from chaos.history.operations import (
    Counts,
    Enqueue,
    Lease,
    OnConflict,
    RetrySettings,
    Seen,
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
    """Whole ms, since 1970 for a point in time."""
    if moment is None:
        return None
    return (moment - _EPOCH) // _MS if isinstance(moment, datetime) else moment // _MS


def state_name(state: ddq.TaskState) -> State:
    """As in the journal."""
    return cast("State", state.name.lower())


def stamp(revision: int, receipt: ddq.Receipt) -> dict[str, Any]:
    """The fields that every reply has."""
    return {
        "revision": revision,
        "store_ms": ms(receipt.store_time) or 0,
        "lineage": receipt.lineage_id.hex(),
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
        digest(task.payload),
        ms(task.delay),
        ms(task.due),
        cast("OnConflict", _ON_CONFLICT[task.on_conflict]),
        task.expected_revision,
        policy(task.retry_policy),
        ms(task.debounce_limit),
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
        payload=digest(lease.payload),
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
        payload=None if task.payload is None else digest(task.payload),
        incarnation=task.incarnation,
        promotion=task.promotion,
        attempt=task.attempt,
        run=task.run,
        due_ms=ms(task.due_time) or 0,
        expire_ms=ms(task.lease_expire_time) or 0,
    )


def counts_value(counts: ddq.TaskCounts) -> Counts:
    """A shard's count."""
    return Counts(
        **{name: getattr(counts, name) for name in Counts.__struct_fields__},
    )


def stats_value(stats: ddq.TopicStats) -> Stats:
    """A topic's count, shard by shard."""
    return Stats([counts_value(shard.counts) for shard in stats.shards])
