"""What JobStore takes and returns: frozen values, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ddq.config import KIB
from ddq.store.records import pack_headers
from ddq.task import Receipt, Schedule, Task, TaskState

# What a reply carries of a task beside payload, headers, id and state record, at most: its topic,
# times, retry policy, receipt.
ENVELOPE_BYTES = 512
# With retrieve_max_bytes it stays below 4 MiB, which is what clients take by default. A reply that
# is refused there has cost all its tasks an attempt.
ENVELOPES_MAX_BYTES = 960 * KIB


class Enqueued(NamedTuple):
    """An id that is in the store now; ``created`` says whether this request put it there."""

    id: str
    created: bool
    state: TaskState
    revision: int
    incarnation: int
    due_ms: int


class Leased(NamedTuple):
    """A task and the right to its present attempt; ``max_run_ms`` of its topic, 0: no bound."""

    task: Task
    token: bytes
    expiry_ms: int
    receipt: Receipt
    max_run_ms: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """A task and its token, to be acked, released, extended or nacked."""

    id: str
    token: bytes


@dataclass(frozen=True, slots=True)
class Extension(Settlement):
    """``lease_ms`` from now on; None: the topic's default."""

    lease_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Rejection(Settlement):
    """A nack; ``delay_ms`` None means by the retry policy."""

    delay_ms: int | None = None
    dead: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Postponement(Settlement):
    """A snooze: the task is due again ``delay_ms`` from now."""

    delay_ms: int


@dataclass(frozen=True, slots=True)
class Content:
    """What a task carries; ``digest`` stands for it in comparisons with later enqueues."""

    payload: bytes
    headers: Mapping[str, str]
    digest: bytes


@dataclass(frozen=True, slots=True)
class Continuation(Settlement):
    """An ack, and the next run under the same id; ``content`` None: that of this run."""

    schedule: Schedule
    content: Content | None = None


@dataclass(frozen=True, slots=True)
class Continued:
    """The next run as it was made."""

    incarnation: int
    due_ms: int


@dataclass(frozen=True, slots=True)
class Removal:
    """A cancel; ``revoke`` also takes a leased task from its holder."""

    id: str
    revoke: bool = False


class Changed(NamedTuple):
    """A task after a transition; ``at_ms`` is its due time or lease expiry, 0 where neither."""

    state: TaskState
    revision: int
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Removed:
    """A cancelled task; ``already``: by an earlier request, or this one before."""

    already: bool
    revision: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page of a listing ended: the last entry's shard, score and id, as in the index."""

    shard: int = 0
    score: str = ""
    id: bytes = b""


def content_bytes(lease: Leased) -> int:
    """The size of a lease's payload and headers, as the scripts count it."""
    return lease.task.payload_size_bytes + len(pack_headers(lease.task.headers))


def envelope_bytes(lease: Leased) -> int:
    """What a reply carries of a lease beside payload and headers, at most."""
    task = lease.task
    return ENVELOPE_BYTES + len(task.id.encode()) + len(task.last_error.encode())
