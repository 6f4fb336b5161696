"""Topics, their settings and statistics as values of the client; see values.py."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ddq.client.values import ItemResult, Receipt, RetryPolicy
from ddq.task import Durability


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """The settings of a topic; see ddq.v1.TopicSettings. None: the server's default.

    Attributes:
        default_retry_policy: for tasks that do not bring their own.
        default_lease_duration: for a retrieve that names none.
        max_tasks: tasks held at once; 0: no bound but the store's memory.
        tombstone_retention: how long a finished id is remembered.
        durability: replies leave when the write has travelled this far.
        journal: each transition also goes to the shard's journal.
        journal_max_entries: about how many entries a shard's journal keeps.
        max_bytes: bytes of payloads and headers held at once; 0: no bound.
        max_run: how long a handler may run before its worker ends the attempt; 0: no bound.
    """

    default_retry_policy: RetryPolicy | None = None
    default_lease_duration: timedelta | None = None
    max_tasks: int | None = None
    tombstone_retention: timedelta | None = None
    durability: Durability | None = None
    journal: bool | None = None
    journal_max_entries: int | None = None
    max_run: timedelta | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the server knows it.

    Attributes:
        uid: random; a topic that is deleted and created again has another.
        deleting: it takes no new tasks and delivers none; delete_topic finishes it.
    """

    name: str
    uid: bytes
    shards: int
    settings: TopicSettings
    paused: bool
    deleting: bool
    revision: int
    create_time: datetime | None


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """enqueued = scheduled + ready + leased + dead + succeeded + cancelled + purged + set_aside."""

    enqueued: int
    scheduled: int
    ready: int
    leased: int
    dead: int
    succeeded: int
    cancelled: int
    purged: int
    set_aside: int

    @property
    def accounted(self) -> int:
        """The right side of the equation."""
        return (
            self.scheduled
            + self.ready
            + self.leased
            + self.dead
            + self.succeeded
            + self.cancelled
            + self.purged
            + self.set_aside
        )


@dataclass(frozen=True, slots=True)
class ShardStats:
    """One shard of a topic; see ddq.v1.ShardStats."""

    shard: int
    counts: TaskCounts
    tombstones: int
    stray_entries: int
    next_due_time: datetime | None
    next_lease_expire_time: datetime | None
    oldest_ready_age: timedelta | None
    leader_epoch: int
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class TopicStats:
    """A topic in figures: the sum over the shards, and each of them in order."""

    counts: TaskCounts
    shards: tuple[ShardStats, ...]


@dataclass(frozen=True, slots=True)
class Redriven:
    """Dead tasks that got a new run of attempts.

    Attributes:
        count: how many, as far as the replies say: one that was lost is not counted.
        results: one an id, in order, when ids were given.
    """

    count: int
    results: tuple[ItemResult[bool], ...] = ()
