"""ddq's own values as messages of the API, and page tokens."""

from __future__ import annotations

import base64
import json

from google.protobuf.duration_pb2 import Duration
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
    return Timestamp(seconds=ms // 1_000, nanos=ms % 1_000 * 1_000_000)


def duration(ms: int) -> Duration:
    """Ms as a Duration; nothing is negative."""
    ms = max(ms, 0)
    return Duration(seconds=ms // 1_000, nanos=ms % 1_000 * 1_000_000)


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


def retry_policy(value: RetryPolicy) -> task_pb2.RetryPolicy:
    """A retry policy with every field set."""
    return task_pb2.RetryPolicy(
        max_attempts=value.max_attempts,
        initial_backoff=duration(value.initial_backoff_ms),
        max_backoff=duration(value.max_backoff_ms),
        multiplier=value.multiplier,
        jitter=value.jitter,
    )


def task(value: Task) -> task_pb2.Task:
    """A task as the view that it was read in allows."""
    message = task_pb2.Task(
        topic=value.topic,
        id=value.id,
        payload=value.payload or b"",
        headers=dict(value.headers),
        state=state(value.state),
        revision=value.revision,
        incarnation=value.incarnation,
        promotion=value.promotion,
        attempt=value.attempt,
        run=value.run,
        due_time=timestamp(value.due_ms),
        last_error=value.last_error,
        payload_size_bytes=value.payload_size_bytes,
        snoozes=value.snoozes,
    )
    if value.created_ms:
        message.create_time.CopyFrom(timestamp(value.created_ms))
    if value.updated_ms:
        message.update_time.CopyFrom(timestamp(value.updated_ms))
    if value.lease_expiry_ms:
        message.lease_expire_time.CopyFrom(timestamp(value.lease_expiry_ms))
    if value.retry_policy is not None:
        message.retry_policy.CopyFrom(retry_policy(value.retry_policy))
    return message


def leased_task(value: Leased) -> queue_pb2.LeasedTask:
    """A task and its lease."""
    return queue_pb2.LeasedTask(
        task=task(value.task),
        lease_token=value.token,
        lease_expire_time=timestamp(value.expiry_ms),
        lease_remaining=duration(value.expiry_ms - value.receipt.store_ms),
        receipt=receipt(value.receipt),
        max_run=duration(value.max_run_ms) if value.max_run_ms else None,
    )


def enqueue_result(value: Enqueued, _: Receipt | None = None) -> queue_pb2.EnqueueResult:
    """What became of an enqueue."""
    return queue_pb2.EnqueueResult(
        id=value.id,
        created=value.created,
        state=state(value.state),
        revision=value.revision,
        incarnation=value.incarnation,
        due_time=timestamp(value.due_ms),
    )


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


def ack_result(changed: Changed, _: Receipt | None) -> queue_pb2.AckResult:
    """The result of an ack."""
    return queue_pb2.AckResult(revision=changed.revision)


def release_result(changed: Changed, _: Receipt | None) -> queue_pb2.ReleaseResult:
    """The result of a release."""
    return queue_pb2.ReleaseResult(revision=changed.revision)


def nack_result(changed: Changed, _: Receipt | None) -> queue_pb2.NackResult:
    """The result of a nack."""
    result = queue_pb2.NackResult(state=state(changed.state), revision=changed.revision)
    if changed.state is TaskState.SCHEDULED:
        result.due_time.CopyFrom(timestamp(changed.at_ms))
    return result


def snooze_result(changed: Changed, _: Receipt | None) -> queue_pb2.SnoozeResult:
    """The result of a snooze."""
    return queue_pb2.SnoozeResult(revision=changed.revision, due_time=timestamp(changed.at_ms))


def extend_result(changed: Changed, receipt: Receipt | None) -> queue_pb2.ExtendResult:
    """The result of an extend."""
    assert receipt is not None  # a value comes from a script
    return queue_pb2.ExtendResult(
        lease_expire_time=timestamp(changed.at_ms),
        lease_remaining=duration(changed.at_ms - receipt.store_ms),
        revision=changed.revision,
    )


def cancel_result(removed: Removed, _: Receipt | None) -> queue_pb2.CancelResult:
    """The result of a cancel."""
    return queue_pb2.CancelResult(
        already_cancelled=removed.already,
        revision=removed.revision,
        incarnation=removed.incarnation,
    )
