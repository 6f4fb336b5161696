"""What goes into the client and what comes out: frozen values, no I/O.

Times are datetimes in UTC by the store's clock, spans are timedeltas. None means: not set, and in
an argument: the documented default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from ddq.errors import DdqError
from ddq.task import Durability, OnConflict, TaskState

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a task is tried again; see ddq.v1.RetryPolicy. None: as the topic has it.

    Attributes:
        max_attempts: leases in one run before the task is dead, or UNLIMITED_ATTEMPTS.
        initial_backoff: wait after the first attempt.
        max_backoff: longest wait.
        multiplier: factor from one wait to the next.
        jitter: random part on top of a wait, as a share of it, 0 to 1.
    """

    max_attempts: int | None = None
    initial_backoff: timedelta | None = None
    max_backoff: timedelta | None = None
    multiplier: float | None = None
    jitter: float | None = None


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task for enqueue_batch.

    Attributes:
        payload: opaque bytes, at most 1 MiB.
        id: 1 to 256 bytes of UTF-8; None: the client makes a UUIDv7.
        headers: up to 64, strings both ways.
        delay: how long from the moment the store takes it; not together with ``due``.
        due: when it becomes due, with a time zone; not together with ``delay``.
        retry_policy: None: the topic's.
        on_conflict: what happens when the id is taken by other content.
        expected_revision: with a replacement: only if the task there has this revision.
        debounce_limit: with DEBOUNCE: how long the task may be pushed back in all.
    """

    payload: bytes = b""
    id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: timedelta | None = None
    due: datetime | None = None
    retry_policy: RetryPolicy | None = None
    on_conflict: OnConflict = OnConflict.FAIL
    expected_revision: int | None = None
    debounce_limit: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the store gave for a reply.

    Attributes:
        durability: how far the write had travelled; None if the server did not say.
        replicas_acked: replicas that confirmed it; 0 in FAST.
        lineage_id: random tag of the shard's latest transition.
        store_time: the store's clock when it answered.
    """

    durability: Durability | None
    replicas_acked: int
    lineage_id: bytes
    store_time: datetime | None


@dataclass(frozen=True, slots=True)
class Task:
    """A task as the store knows it; see ddq.v1.Task.

    Attributes:
        payload: None where it was not asked for, or is gone because the task has finished.
        attempt: number of the present or last lease in this run; 0 before the first.
        run: 1, and one more with each redrive.
        last_error: of the latest nack, or the note of an expired lease.
        payload_size_bytes: also where the payload is left out.
        snoozes: how often it was snoozed in this run.
    """

    topic: str
    id: str
    state: TaskState
    payload: bytes | None
    headers: Mapping[str, str]
    revision: int
    incarnation: int
    promotion: int
    attempt: int
    run: int
    create_time: datetime | None
    due_time: datetime | None
    update_time: datetime | None
    lease_expire_time: datetime | None
    retry_policy: RetryPolicy | None
    last_error: str
    payload_size_bytes: int
    snoozes: int = 0


class _Unread:
    """Fields that are read from a reply when they are asked for.

    Attributes:
        _read: reads a field by its name; unset where all fields were given.
    """

    __slots__ = ("_read",)
    _read: Callable[[str], Any]

    def __getattr__(self, name: str) -> Any:
        # Called for a slot that is unset, and never again for the same one.
        if name not in type(self).__slots__:
            raise AttributeError(name)
        value = self._read(name)
        object.__setattr__(self, name, value)
        return value


@dataclass(frozen=True, slots=True)
class LeaseRef(_Unread):
    """The right to one attempt, as far as ack, nack, extend and release need it.

    Attributes:
        token: proves the right; unguessable.
    """

    topic: str
    id: str
    token: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Lease(LeaseRef):
    """A task that this caller may work on until the lease expires.

    Attributes:
        task: with its payload.
        expire_time: when the lease ends by the store's clock.
        remaining: what was left of it when the store answered.
        max_run: how long its topic lets a handler run; None: no bound.
    """

    task: Task
    expire_time: datetime | None
    remaining: timedelta
    receipt: Receipt
    max_run: timedelta | None = None

    @classmethod
    def reading(cls, topic: str, task_id: str, token: bytes, read: Callable[[str], Any]) -> Lease:
        """A lease whose other fields are read by their names when they are asked for."""
        lease = object.__new__(cls)
        put = object.__setattr__
        put(lease, "topic", topic)
        put(lease, "id", task_id)
        put(lease, "token", token)
        put(lease, "_read", read)
        return lease

    @property
    def due_time(self) -> datetime | None:
        """When the task became due."""
        # All of the task need not be read for it: a worker asks for this of each.
        read: Callable[[str], Any] | None = getattr(self, "_read", None)
        return self.task.due_time if read is None else read("due_time")

    @property
    def payload(self) -> bytes:
        """The bytes that were enqueued."""
        return self.task.payload or b""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that were enqueued."""
        return self.task.headers

    @property
    def attempt(self) -> int:
        """The number of this attempt in its run, from 1."""
        return self.task.attempt


@dataclass(frozen=True, slots=True)
class Enqueued:
    """An enqueue that was accepted.

    Attributes:
        created: False: the id was there already, with this content or because RETURN_EXISTING
            asked for what is there.
    """

    id: str
    created: bool
    state: TaskState
    revision: int
    incarnation: int
    due_time: datetime | None
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Acked:
    """A task that succeeded."""

    revision: int
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class RanAgain:
    """A task that succeeded, and its next run.

    Attributes:
        revision: of the next run when it was made.
        incarnation: of the next run.
        due_time: of the next run.
    """

    revision: int
    incarnation: int
    due_time: datetime | None
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Nacked:
    """An attempt that ended without success.

    Attributes:
        state: SCHEDULED, or DEAD.
        due_time: when it is tried again; None when it is dead.
    """

    state: TaskState
    revision: int
    due_time: datetime | None
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Extended:
    """A lease that runs longer.

    Attributes:
        expire_time: when it ends by the store's clock.
        remaining: what was left of it when the store answered.
    """

    expire_time: datetime | None
    remaining: timedelta
    revision: int
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Released:
    """A lease that was handed back; its attempt does not count."""

    revision: int
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Snoozed:
    """A task that was put off; the attempt did not count.

    Attributes:
        due_time: when it is due again.
    """

    due_time: datetime | None
    revision: int
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A task that is never delivered again in this incarnation.

    Attributes:
        already_cancelled: an earlier request, or this one repeated, had cancelled it.
    """

    already_cancelled: bool
    revision: int
    incarnation: int
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Rescheduled:
    """A task with another due time."""

    due_time: datetime | None
    revision: int
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class DeadDeleted:
    """A dead task that is gone."""

    revision: int
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class ItemResult(Generic[T]):
    """The outcome of one item of a batch: a value or an error.

    Attributes:
        id: the task's id.
    """

    id: str
    value: T | None = None
    error: DdqError | None = None

    def unwrap(self) -> T:
        """The value, or raises the error."""
        if self.error is not None:
            raise self.error
        assert self.value is not None
        return self.value
