"""Tasks, topics and their parts: frozen values, no I/O. Times are ms since 1970, store clock.

What is made for each task of a batch is a NamedTuple: a frozen dataclass takes four times as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

from ddq.config import DEFAULTS
from ddq.errors import DdqError

T = TypeVar("T")


class TaskState(IntEnum):
    """The numbers are those of the API, the Lua prelude and the state records."""

    SCHEDULED = 1
    READY = 2
    LEASED = 3
    SUCCEEDED = 4
    DEAD = 5
    CANCELLED = 6
    PURGED = 7


STATES = {int(state): state for state in TaskState}
"""A state by its number: a call of an Enum is several times slower."""

HELD = frozenset({TaskState.SCHEDULED, TaskState.READY, TaskState.LEASED, TaskState.DEAD})
"""States in which the store holds the payload."""


class Durability(IntEnum):
    """How far a write has travelled when its reply leaves; the numbers are those of the API."""

    FAST = 1
    QUORUM = 2
    ALL = 3


class OnConflict(IntEnum):
    """What an enqueue does about an id that is taken; the numbers are those of the API."""

    FAIL = 1
    RETURN_EXISTING = 2
    REPLACE_IF_SCHEDULED = 3
    REPLACE_IF_FINISHED = 4
    DEBOUNCE = 5


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """min(max_backoff_ms, initial_backoff_ms * multiplier^(attempt - 1)), plus jitter on top."""

    max_attempts: int = DEFAULTS.max_attempts
    initial_backoff_ms: int = DEFAULTS.initial_backoff_ms
    max_backoff_ms: int = DEFAULTS.max_backoff_ms
    multiplier: float = DEFAULTS.multiplier
    jitter: float = DEFAULTS.jitter


@dataclass(frozen=True, slots=True)
class RetryOverrides:
    """What a task asks for; None comes from its topic."""

    max_attempts: int | None = None
    initial_backoff_ms: int | None = None
    max_backoff_ms: int | None = None
    multiplier: float | None = None
    jitter: float | None = None

    def over(self, policy: RetryPolicy) -> RetryPolicy:
        """The policy that applies; a longer first backoff lifts the cap of the topic with it."""
        if self is NO_OVERRIDES and policy.initial_backoff_ms <= policy.max_backoff_ms:
            # As nearly always, once for each task of a batch.
            return policy
        chosen = {name: value for name, value in asdict(self).items() if value is not None}
        merged = replace(policy, **chosen)
        if self.max_backoff_ms is None and merged.initial_backoff_ms > merged.max_backoff_ms:
            return replace(merged, max_backoff_ms=merged.initial_backoff_ms)
        if merged.max_backoff_ms < merged.initial_backoff_ms:
            return replace(merged, initial_backoff_ms=merged.max_backoff_ms)
        return merged


NO_OVERRIDES = RetryOverrides()
"""The overrides of a task that leaves everything to its topic."""


class Schedule(NamedTuple):
    """When a task becomes due: ``value_ms`` from now, or since 1970 if ``absolute``."""

    value_ms: int = 0
    absolute: bool = False


class NewTask(NamedTuple):
    """A task as its producer describes it.

    Attributes:
        digest: over the content as it was sent.
        debounce_limit_ms: with DEBOUNCE: how long it may be pushed back in all; else 0.
    """

    id: str
    payload: bytes
    headers: Mapping[str, str]
    schedule: Schedule
    retry_policy: RetryOverrides
    digest: bytes
    on_conflict: OnConflict = OnConflict.FAIL
    expected_revision: int | None = None
    debounce_limit_ms: int = 0


class Task(NamedTuple):
    """A task as the store knows it. ``payload`` is None where it was not asked for or is gone."""

    topic: str
    id: str
    state: TaskState
    revision: int
    incarnation: int
    promotion: int
    attempt: int
    run: int
    due_ms: int
    updated_ms: int
    last_error: str = ""
    snoozes: int = 0
    created_ms: int = 0
    lease_expiry_ms: int = 0
    headers: Mapping[str, str] = MappingProxyType({})
    retry_policy: RetryPolicy | None = None
    payload: bytes | None = None
    payload_size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the store gave for a reply; see ddq.v1.Receipt."""

    durability: Durability
    replicas_acked: int
    lineage_id: bytes
    store_ms: int
    sequence: int
    fsynced: bool = False


class Outcome(NamedTuple, Generic[T]):
    """The outcome of one item: a value or an error, and the receipt if a script answered."""

    value: T | None = None
    error: DdqError | None = None
    receipt: Receipt | None = None

    def unwrap(self) -> T:
        """The value, or raises the error."""
        if self.error is not None:
            raise self.error
        assert self.value is not None
        return self.value


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """The settings of a topic, defaults filled in."""

    retry_policy: RetryPolicy = RetryPolicy()
    lease_ms: int = DEFAULTS.lease_ms
    max_tasks: int = 0
    tombstone_retention_ms: int = DEFAULTS.tombstone_retention_ms
    durability: Durability = Durability.QUORUM
    fsync: bool = False
    journal: bool = False
    journal_max_entries: int = DEFAULTS.journal_max_entries
    max_run_ms: int = 0
    max_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the registry knows it. ``uid`` is 16 bytes: ordinal, then random."""

    name: str
    uid: bytes
    revision: int
    shards: int
    settings: TopicSettings
    created_ms: int
    paused: bool = False
    deleting: bool = False
