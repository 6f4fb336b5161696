"""Values to messages and back, nothing else."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Protocol, TypeVar

from google.protobuf import duration_pb2, timestamp_pb2
from google.protobuf.message import Message

from ddq.client import values
from ddq.config import LIMITS
from ddq.errors import FieldViolation, InvalidArgument, Unimplemented
from ddq.task import Durability, TaskState
from ddq.v1 import delay_queue_service_pb2 as queue_pb
from ddq.v1 import task_pb2

E = TypeVar("E", bound=IntEnum)

# The conversions of protobuf's well-known types cost several Python calls for each field.
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = datetime.min.replace(tzinfo=UTC) - _EPOCH
_LATEST = datetime.max.replace(tzinfo=UTC) - _EPOCH
_SECONDS_PER_DAY = 86_400
_NANOS_PER_MICROSECOND = 1_000
_FINISHED = frozenset({TaskState.SUCCEEDED, TaskState.CANCELLED, TaskState.PURGED})


class _Scheduled(Protocol):
    """TaskSpec and RescheduleRequest have the same oneof."""

    @property
    def delay(self) -> duration_pb2.Duration: ...

    @property
    def due_time(self) -> timestamp_pb2.Timestamp: ...


def refused(field: str, description: str) -> InvalidArgument:
    """The error for an argument that cannot be put into a request."""
    return InvalidArgument(
        f"{field}: {description}", violations=(FieldViolation(field, description),)
    )


def text(field: str, value: str) -> str:
    """``value``, or an error if it has no UTF-8 form, as command lines may bring it."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise refused(field, "is not valid UTF-8") from error
    return value


def given_id(field: str, value: str | None) -> str | None:
    """``value``, or an error if it is empty: the server would make an id of its own.

    A repeat would then get another id, and act a second time without saying so.
    """
    if value == "":
        raise refused(
            field, "is empty; leave it out, or give None, and the client makes one that it repeats"
        )
    return value


def put_duration(target: duration_pb2.Duration, value: timedelta | None) -> None:
    """Sets ``target`` unless ``value`` is None: the field then stays unset, the default."""
    if value is None:
        return
    if value.days < 0:
        target.FromTimedelta(value)
        return
    target.seconds = value.days * _SECONDS_PER_DAY + value.seconds
    target.nanos = value.microseconds * _NANOS_PER_MICROSECOND


def duration(value: timedelta | None) -> duration_pb2.Duration | None:
    """A duration as a message; None stays None: the field is then unset, the default."""
    if value is None:
        return None
    message = duration_pb2.Duration()
    message.FromTimedelta(value)
    return message


def timestamp(ms: int) -> timestamp_pb2.Timestamp:
    """Ms since 1970 as a message."""
    message = timestamp_pb2.Timestamp()
    message.FromMilliseconds(ms)
    return message


def put_schedule(target: _Scheduled, delay: timedelta | None, due: datetime | None) -> None:
    """Sets the oneof ``schedule``; neither means now."""
    if delay is not None and due is not None:
        raise refused("schedule", "give a delay or a due time, not both")
    if due is not None:
        if due.utcoffset() is None:
            raise refused("due_time", "has no time zone; give one, for example datetime.UTC")
        since_epoch = due - _EPOCH
        if not _EARLIEST <= since_epoch <= _LATEST:
            raise refused("due_time", "is outside the years 1 to 9999 in UTC")
        moment = target.due_time
        moment.seconds = since_epoch.days * _SECONDS_PER_DAY + since_epoch.seconds
        moment.nanos = since_epoch.microseconds * _NANOS_PER_MICROSECOND
    put_duration(target.delay, delay)


def put_retry_policy(target: task_pb2.RetryPolicy, policy: values.RetryPolicy | None) -> None:
    """Sets those fields that are not None."""
    if policy is None:
        return
    if policy.max_attempts is not None:
        target.max_attempts = uint("retry_policy.max_attempts", policy.max_attempts, bits=32)
    put_duration(target.initial_backoff, policy.initial_backoff)
    put_duration(target.max_backoff, policy.max_backoff)
    if policy.multiplier is not None:
        target.multiplier = policy.multiplier
    if policy.jitter is not None:
        target.jitter = policy.jitter


def uint(field: str, value: int, *, bits: int = 64) -> int:
    """``value``, or an error if the field cannot hold it."""
    if not 0 <= value < 1 << bits:
        raise refused(field, f"is {value}; it has to be from 0 to {(1 << bits) - 1}")
    return value


def task_spec(task: values.NewTask, task_id: str) -> task_pb2.TaskSpec:
    """What a producer describes, under the id that was chosen for it."""
    spec = task_pb2.TaskSpec(id=text("task.id", task_id), payload=task.payload)
    for key, value in task.headers.items():
        spec.headers[text("task.headers", key)] = text("task.headers", value)
    put_schedule(spec, task.delay, task.due)
    if task.retry_policy is not None:
        put_retry_policy(spec.retry_policy, task.retry_policy)
    return spec


def content(payload: bytes, headers: Mapping[str, str]) -> queue_pb.TaskContent:
    """What a next run carries."""
    return queue_pb.TaskContent(
        payload=payload,
        headers={
            text("next.content.headers", key): text("next.content.headers", value)
            for key, value in headers.items()
        },
    )


def verdict(error: str, delay: timedelta | None, *, dead_letter: bool) -> queue_pb.NackVerdict:
    """Why an attempt failed and what comes next."""
    # No more than the server keeps: a text of 10 MB would make the request too large to be sent.
    kept = error.encode(errors="replace")[: LIMITS.error_max_bytes].decode(errors="ignore")
    message = queue_pb.NackVerdict(error=kept, dead_letter=dead_letter)
    put_duration(message.delay, delay)
    return message


@functools.lru_cache(maxsize=256)
def enum(kind: type[E], number: int) -> E:
    """A member by its number; remembered, since a lookup in an Enum is a Python call.

    Raises:
        Unimplemented: a newer server knows it.
    """
    try:
        return kind(number)
    except ValueError as error:
        raise Unimplemented(
            f"the server answers with {kind.__name__} {number}, which this client does not know; "
            "use a newer one"
        ) from error


def time(message: Message, field: str) -> datetime | None:
    """A Timestamp, to the microsecond, or None where it is unset."""
    if not message.HasField(field):
        return None
    stamp = getattr(message, field)
    return _EPOCH + timedelta(0, stamp.seconds, stamp.nanos // _NANOS_PER_MICROSECOND)


def span(message: Message, field: str) -> timedelta | None:
    """A Duration, to the microsecond, or None where it is unset."""
    return _timedelta(getattr(message, field)) if message.HasField(field) else None


def _timedelta(value: duration_pb2.Duration) -> timedelta:
    # Nanoseconds of a negative duration are negative, so this rounds towards zero.
    return timedelta(0, value.seconds, int(value.nanos / _NANOS_PER_MICROSECOND))


def receipt(message: task_pb2.Receipt) -> values.Receipt:
    """The receipt of a reply; tasks that one script answered share one value."""
    return _receipt(message.SerializeToString())


@functools.lru_cache(maxsize=64)
def _receipt(serialized: bytes) -> values.Receipt:
    message = task_pb2.Receipt.FromString(serialized)
    return values.Receipt(
        durability=enum(Durability, message.durability) if message.durability else None,
        replicas_acked=message.replicas_acked,
        lineage_id=message.lineage_id,
        store_time=time(message, "store_time"),
    )


def retry_policy(message: task_pb2.RetryPolicy) -> values.RetryPolicy:
    """Unset fields become None; tasks with the policy of their topic share one value."""
    return _retry_policy(message.SerializeToString())


@functools.lru_cache(maxsize=64)
def _retry_policy(serialized: bytes) -> values.RetryPolicy:
    message = task_pb2.RetryPolicy.FromString(serialized)
    return values.RetryPolicy(
        max_attempts=message.max_attempts if message.HasField("max_attempts") else None,
        initial_backoff=span(message, "initial_backoff"),
        max_backoff=span(message, "max_backoff"),
        multiplier=message.multiplier if message.HasField("multiplier") else None,
        jitter=message.jitter if message.HasField("jitter") else None,
    )


def task(message: task_pb2.Task) -> values.Task:
    """A task with or without its payload."""
    state = enum(TaskState, message.state)
    # Bytes have no presence on the wire; the size tells an empty payload from one left out.
    left_out = state in _FINISHED or (not message.payload and message.payload_size_bytes > 0)
    headers: Mapping[str, str] = dict(message.headers)
    return values.Task(
        topic=message.topic,
        id=message.id,
        state=state,
        payload=None if left_out else message.payload,
        headers=headers,
        revision=message.revision,
        incarnation=message.incarnation,
        promotion=message.promotion,
        attempt=message.attempt,
        run=message.run,
        create_time=time(message, "create_time"),
        due_time=time(message, "due_time"),
        update_time=time(message, "update_time"),
        lease_expire_time=time(message, "lease_expire_time"),
        retry_policy=(
            retry_policy(message.retry_policy) if message.HasField("retry_policy") else None
        ),
        last_error=message.last_error,
        payload_size_bytes=message.payload_size_bytes,
        snoozes=message.snoozes,
    )


def lease(message: queue_pb.LeasedTask) -> values.Lease:
    """A task and the right to work on it; most of it is read when it is asked for."""
    head = message.task
    return values.Lease.reading(
        head.topic,
        head.id,
        message.lease_token,
        lambda name: _LEASE_READERS[name](message),
    )


_LEASE_READERS: Mapping[str, Callable[[queue_pb.LeasedTask], object]] = {
    "task": lambda message: task(message.task),
    "expire_time": lambda message: time(message, "lease_expire_time"),
    "remaining": lambda message: _timedelta(message.lease_remaining),
    "receipt": lambda message: receipt(message.receipt),
    "max_run": lambda message: span(message, "max_run"),
    # Of the task; a worker asks for it and for nothing else of each.
    "due_time": lambda message: time(message.task, "due_time"),
}


def enqueued(result: queue_pb.EnqueueResult, given: task_pb2.Receipt) -> values.Enqueued:
    """The answer to an enqueue."""
    return values.Enqueued(
        id=result.id,
        created=result.created,
        state=enum(TaskState, result.state),
        revision=result.revision,
        incarnation=result.incarnation,
        due_time=time(result, "due_time"),
        receipt=receipt(given),
    )


def acked(result: queue_pb.AckResult, given: task_pb2.Receipt) -> values.Acked:
    """The answer to an ack."""
    return values.Acked(revision=result.revision, receipt=receipt(given))


def ran_again(result: queue_pb.RunAgainResult, given: task_pb2.Receipt) -> values.RanAgain:
    """The answer to a run_again."""
    return values.RanAgain(
        revision=result.revision,
        incarnation=result.incarnation,
        due_time=time(result, "due_time"),
        receipt=receipt(given),
    )


def nacked(result: queue_pb.NackResult, given: task_pb2.Receipt) -> values.Nacked:
    """The answer to a nack."""
    return values.Nacked(
        state=enum(TaskState, result.state),
        revision=result.revision,
        due_time=time(result, "due_time"),
        receipt=receipt(given),
    )


def extended(result: queue_pb.ExtendResult, given: task_pb2.Receipt) -> values.Extended:
    """The answer to an extend."""
    return values.Extended(
        expire_time=time(result, "lease_expire_time"),
        remaining=_timedelta(result.lease_remaining),
        revision=result.revision,
        receipt=receipt(given),
    )


def released(result: queue_pb.ReleaseResult, given: task_pb2.Receipt) -> values.Released:
    """The answer to a release."""
    return values.Released(revision=result.revision, receipt=receipt(given))


def snoozed(result: queue_pb.SnoozeResult, given: task_pb2.Receipt) -> values.Snoozed:
    """The answer to a snooze."""
    return values.Snoozed(
        due_time=time(result, "due_time"), revision=result.revision, receipt=receipt(given)
    )


def cancelled(result: queue_pb.CancelResult, given: task_pb2.Receipt) -> values.Cancelled:
    """The answer to a cancel."""
    return values.Cancelled(
        already_cancelled=result.already_cancelled,
        revision=result.revision,
        incarnation=result.incarnation,
        receipt=receipt(given),
    )


def rescheduled(message: queue_pb.RescheduleResponse) -> values.Rescheduled:
    """The answer to a reschedule."""
    return values.Rescheduled(
        due_time=time(message, "due_time"),
        revision=message.revision,
        receipt=receipt(message.receipt),
    )
