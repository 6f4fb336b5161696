"""ddq's own values as messages of the API, and page tokens.

What a reply has for each task of a batch is written into the reply field by field, by functions
named put_…: a message from keyword arguments, copied into its parent, takes two to three times as
long.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from google.protobuf.timestamp_pb2 import Timestamp

from ddq.config import LIMITS
from ddq.errors import FieldViolation, InvalidArgument
from ddq.store.job_values import Changed, Cursor, Enqueued, Leased, Removed
from ddq.store.scheduler_api import Survey
from ddq.task import Receipt, RetryPolicy, Task, TaskState, Topic, TopicSettings
from ddq.v1 import delay_queue_admin_service_pb2 as admin_pb2
from ddq.v1 import delay_queue_service_pb2 as queue_pb2
from ddq.v1 import task_pb2, topic_pb2


def timestamp(ms: int) -> Timestamp:
    """Ms since 1970 as a Timestamp."""
    message = Timestamp()
    put_timestamp(message, ms)
    return message


def duration(ms: int) -> Duration:
    """Ms as a Duration; nothing is negative."""
    message = Duration()
    put_duration(message, ms)
    return message


def put_timestamp(target: Timestamp, ms: int) -> None:
    """Sets ms since 1970."""
    seconds, ms = divmod(ms, 1_000)
    target.seconds = seconds
    target.nanos = ms * 1_000_000


def put_duration(target: Duration, ms: int) -> None:
    """Sets ms; nothing is negative."""
    seconds, ms = divmod(ms, 1_000) if ms > 0 else (0, 0)
    target.seconds = seconds
    target.nanos = ms * 1_000_000


def state(value: TaskState) -> task_pb2.TaskState.ValueType:
    """The numbers are the same by design."""
    return task_pb2.TaskState.ValueType(int(value))


def receipt(value: Receipt | None) -> task_pb2.Receipt | None:
    """A receipt; None where no script answered."""
    if value is None:
        return None
    return task_pb2.Receipt(
        durability=task_pb2.Durability.ValueType(int(value.durability)),
        replicas_acked=value.replicas_acked,
        lineage_id=value.lineage_id,
        store_time=timestamp(value.store_ms),
        fsynced=value.fsynced,
    )


@functools.lru_cache(maxsize=256)
def retry_policy(value: RetryPolicy) -> task_pb2.RetryPolicy:
    """A retry policy with every field set; not to be changed, since equal ones are one message."""
    return task_pb2.RetryPolicy(
        max_attempts=value.max_attempts,
        initial_backoff=duration(value.initial_backoff_ms),
        max_backoff=duration(value.max_backoff_ms),
        multiplier=value.multiplier,
        jitter=value.jitter,
    )


def put_task(target: task_pb2.Task, value: Task) -> None:
    """Sets a task as the view that it was read in allows."""
    target.topic = value.topic
    target.id = value.id
    target.state = state(value.state)
    target.revision = value.revision
    target.incarnation = value.incarnation
    target.promotion = value.promotion
    target.attempt = value.attempt
    target.run = value.run
    target.payload_size_bytes = value.payload_size_bytes
    put_timestamp(target.due_time, value.due_ms)
    if value.payload:
        target.payload = value.payload
    if value.headers:
        target.headers.update(value.headers)
    if value.last_error:
        target.last_error = value.last_error
    if value.snoozes:
        target.snoozes = value.snoozes
    if value.created_ms:
        put_timestamp(target.create_time, value.created_ms)
    if value.updated_ms:
        put_timestamp(target.update_time, value.updated_ms)
    if value.lease_expiry_ms:
        put_timestamp(target.lease_expire_time, value.lease_expiry_ms)
    if value.retry_policy is not None:
        target.retry_policy.CopyFrom(retry_policy(value.retry_policy))


def task(value: Task) -> task_pb2.Task:
    """A task as the view that it was read in allows."""
    message = task_pb2.Task()
    put_task(message, value)
    return message


def put_leased_tasks(
    target: RepeatedCompositeFieldContainer[queue_pb2.LeasedTask], leases: Iterable[Leased]
) -> None:
    """Appends tasks and their leases."""
    written: Receipt | None = None
    message = task_pb2.Receipt()
    for lease in leases:
        if lease.receipt is not written:
            # Tasks that one script leased share a receipt.
            written = lease.receipt
            message = receipt(written) or message
        leased = target.add()
        put_task(leased.task, lease.task)
        leased.lease_token = lease.token
        put_timestamp(leased.lease_expire_time, lease.expiry_ms)
        put_duration(leased.lease_remaining, lease.expiry_ms - lease.receipt.store_ms)
        leased.receipt.CopyFrom(message)
        if lease.max_run_ms:
            put_duration(leased.max_run, lease.max_run_ms)


def topic_settings(value: TopicSettings) -> topic_pb2.TopicSettings:
    """Settings with every field set."""
    return topic_pb2.TopicSettings(
        default_retry_policy=retry_policy(value.retry_policy),
        default_lease_duration=duration(value.lease_ms),
        max_tasks=value.max_tasks,
        tombstone_retention=duration(value.tombstone_retention_ms),
        durability=task_pb2.Durability.ValueType(int(value.durability)),
        journal=value.journal,
        journal_max_entries=value.journal_max_entries,
        fsync=value.fsync,
        max_run=duration(value.max_run_ms),
        max_bytes=value.max_bytes,
    )


def topic(value: Topic) -> topic_pb2.Topic:
    """A topic."""
    return topic_pb2.Topic(
        name=value.name,
        uid=value.uid,
        shards=value.shards,
        settings=topic_settings(value.settings),
        paused=value.paused,
        state=topic_pb2.TOPIC_STATE_DELETING if value.deleting else topic_pb2.TOPIC_STATE_ACTIVE,
        revision=value.revision,
        create_time=timestamp(value.created_ms),
    )


_COUNTS = (
    "enqueued",
    "scheduled",
    "ready",
    "leased",
    "dead",
    "succeeded",
    "cancelled",
    "purged",
    "set_aside",
)


def shard_stats(index: int, survey: Survey) -> admin_pb2.ShardStats:
    """The figures of one shard."""
    next_wake_up = survey.next_wake_up
    message = admin_pb2.ShardStats(
        shard=index,
        counts=admin_pb2.TaskCounts(**{name: survey.counts[name] for name in _COUNTS}),
        tombstones=survey.tombstones,
        stray_entries=survey.counts["stray"],
        leader_epoch=survey.epoch,
        receipt=receipt(survey.receipt),
    )
    if next_wake_up.due_ms is not None:
        message.next_due_time.CopyFrom(timestamp(next_wake_up.due_ms))
    if next_wake_up.expiry_ms is not None:
        message.next_lease_expire_time.CopyFrom(timestamp(next_wake_up.expiry_ms))
    if survey.oldest_ready_due_ms is not None:
        age_ms = next_wake_up.store_ms - survey.oldest_ready_due_ms
        message.oldest_ready_age.CopyFrom(duration(age_ms))
    return message


def total_counts(surveys: list[Survey]) -> admin_pb2.TaskCounts:
    """The sum over the shards."""
    return admin_pb2.TaskCounts(
        **{name: sum(survey.counts[name] for survey in surveys) for name in _COUNTS}
    )


# Page tokens: opaque to callers, which send them back unchanged.


def page_token(cursor: Cursor | None) -> str:
    """Where the next page begins; empty when there is none."""
    if cursor is None:
        return ""
    parts = [cursor.shard, cursor.score, base64.b64encode(cursor.id).decode()]
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def cursor(token: str) -> Cursor:
    """The inverse of page_token.

    Raises:
        InvalidArgument: the token was not made by page_token.
    """
    if not token:
        return Cursor()
    try:
        if len(token) > LIMITS.page_token_max_bytes:
            raise ValueError("too long")
        shard, score, last_id = json.loads(base64.urlsafe_b64decode(token.encode()))
        if not isinstance(shard, int) or shard < 0:
            raise ValueError("no shard")
        if score != "":
            score = repr(float(score))
            if score == "nan":
                raise ValueError("no score")
        return Cursor(shard, score, base64.b64decode(last_id, validate=True))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        description = "is not one that this server gave; start without one"
        violation = FieldViolation("page_token", description)
        raise InvalidArgument(f"page_token: {description}", violations=(violation,)) from error


# Results: what a request about one task, or a batch's item, is answered with.


def put_enqueued(target: queue_pb2.EnqueueResult, value: Enqueued, _: Receipt | None) -> None:
    """Sets what became of an enqueue."""
    target.id = value.id
    target.created = value.created
    target.state = state(value.state)
    target.revision = value.revision
    target.incarnation = value.incarnation
    put_timestamp(target.due_time, value.due_ms)


def put_revision(
    target: queue_pb2.AckResult | queue_pb2.ReleaseResult, changed: Changed, _: Receipt | None
) -> None:
    """Sets the result of an ack or a release."""
    target.revision = changed.revision


def put_nacked(target: queue_pb2.NackResult, changed: Changed, _: Receipt | None) -> None:
    """Sets the result of a nack."""
    target.state = state(changed.state)
    target.revision = changed.revision
    if changed.state is TaskState.SCHEDULED:
        put_timestamp(target.due_time, changed.at_ms)


def put_snoozed(target: queue_pb2.SnoozeResult, changed: Changed, _: Receipt | None) -> None:
    """Sets the result of a snooze."""
    target.revision = changed.revision
    put_timestamp(target.due_time, changed.at_ms)


def put_extended(target: queue_pb2.ExtendResult, changed: Changed, receipt: Receipt | None) -> None:
    """Sets the result of an extend."""
    assert receipt is not None  # a value comes from a script
    put_timestamp(target.lease_expire_time, changed.at_ms)
    put_duration(target.lease_remaining, changed.at_ms - receipt.store_ms)
    target.revision = changed.revision


def put_cancelled(target: queue_pb2.CancelResult, removed: Removed, _: Receipt | None) -> None:
    """Sets the result of a cancel."""
    target.already_cancelled = removed.already
    target.revision = removed.revision
    target.incarnation = removed.incarnation
