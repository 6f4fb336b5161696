"""What can be asked of a shard, and what it answers: plain values.

A Request is one call: operations of one kind that run at one moment, under one not_after. The
first half of the operations is the API's; the second half is what schedulers do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum


class State(IntEnum):
    """Where a task is. The first three, and DEAD, hold the payload."""

    SCHEDULED = 1
    READY = 2
    LEASED = 3
    SUCCEEDED = 4
    DEAD = 5
    CANCELLED = 6
    PURGED = 7


HELD = frozenset({State.SCHEDULED, State.READY, State.LEASED, State.DEAD})


@dataclass(frozen=True, slots=True)
class Policy:
    """When an attempt that failed is tried again; the multiplier and jitter in thousandths."""

    max_attempts: int = 5
    initial_backoff_ms: int = 1_000
    max_backoff_ms: int = 600_000
    multiplier_milli: int = 2_000
    jitter_milli: int = 100


@dataclass(frozen=True, slots=True)
class When:
    """From now, or a point in time (ms since 1970)."""

    value_ms: int = 0
    absolute: bool = False


# What producers and workers ask ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Enqueue:
    """``content`` stands for all that was sent beside the id: equal content, equal request."""

    id: str
    content: bytes
    when: When = When()
    policy: Policy = Policy()
    on_conflict: str = "fail"  # "existing", "replace_scheduled", "replace_finished", "debounce"
    expected_revision: int | None = None
    limit_ms: int = 0  # of a debounce: how long it may be pushed back in all


@dataclass(frozen=True, slots=True)
class Retrieve:
    """At most one task a token, in the order of due times, within ``max_bytes`` of payload."""

    lease_ms: int
    tokens: tuple[bytes, ...]
    max_bytes: int = 1 << 40
    recall_only: bool = False


@dataclass(frozen=True, slots=True)
class Ack:
    """Finishes the attempt that the token proves."""

    id: str
    token: bytes


@dataclass(frozen=True, slots=True)
class RunAgain:
    """Finishes the attempt, and enqueues the next run of the id; ``content`` None: the same."""

    id: str
    token: bytes
    when: When = When()
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Nack:
    """Ends the attempt without success; ``delay_ms`` None: by the policy."""

    id: str
    token: bytes
    delay_ms: int | None = None
    dead: bool = False
    error: str = ""
    random: float = 0.0


@dataclass(frozen=True, slots=True)
class Extend:
    """Prolongs the lease from now on."""

    id: str
    token: bytes
    lease_ms: int


@dataclass(frozen=True, slots=True)
class Release:
    """Hands the lease back; its attempt does not count."""

    id: str
    token: bytes


@dataclass(frozen=True, slots=True)
class Snooze:
    """Puts the task off; refused after ``limit`` snoozes of the run."""

    id: str
    token: bytes
    delay_ms: int = 1
    limit: int = 10_000


@dataclass(frozen=True, slots=True)
class Cancel:
    """Ends a task that has not finished; ``revoke``: also a leased one."""

    id: str
    revoke: bool = False


@dataclass(frozen=True, slots=True)
class Reschedule:
    """Another due time for a task that is scheduled or ready."""

    id: str
    when: When
    expected_revision: int | None = None


@dataclass(frozen=True, slots=True)
class Get:
    """Looks at one task."""

    id: str


@dataclass(frozen=True, slots=True)
class List:
    """Looks at up to ``limit`` entries of a state's index behind ``after``: (score, id)."""

    state: State
    limit: int
    after: tuple[int, str] | None = None


# What operators ask ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Redrive:
    """A new run for the named dead tasks, or for up to ``limit`` of all."""

    ids: tuple[str, ...] = ()
    limit: int = 0


@dataclass(frozen=True, slots=True)
class DeleteDead:
    """Ends a dead task as purged."""

    id: str
    expected_revision: int | None = None


@dataclass(frozen=True, slots=True)
class Purge:
    """One step of a purge: looks at up to ``limit`` entries; 0 only draws the cut."""

    limit: int


@dataclass(frozen=True, slots=True)
class Configure:
    """New settings for the shard."""

    paused: bool = False
    max_tasks: int = 0
    retention_ms: int = 3_600_000


@dataclass(frozen=True, slots=True)
class Survey:
    """Looks at the counters."""


# What schedulers do ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Acquire:
    """Takes the leadership, or keeps the one that (held_nonce, held_epoch) prove.

    A challenge takes it from a living leader too, if that has a lower rank.
    """

    nonce: bytes
    lease_ms: int
    held_nonce: bytes = b""
    held_epoch: int = 0
    rank: int = 0
    challenge: bool = False


@dataclass(frozen=True, slots=True)
class Resign:
    """Hands the leadership over."""

    nonce: bytes
    epoch: int


@dataclass(frozen=True, slots=True)
class Promote:
    """Up to ``limit`` due tasks become ready."""

    nonce: bytes
    epoch: int
    lease_ms: int
    limit: int


@dataclass(frozen=True, slots=True)
class Reap:
    """Attempts whose lease has expired end, one a random number."""

    nonce: bytes
    epoch: int
    lease_ms: int
    randoms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Collect:
    """Forgets up to ``limit`` tombstones and request records whose time is over."""

    limit: int


Operation = (
    Enqueue | Retrieve | Ack | RunAgain | Nack | Extend | Release | Snooze | Cancel | Reschedule
    | Get | List | Redrive | DeleteDead | Purge | Configure | Survey
    | Acquire | Resign | Promote | Reap | Collect
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """One call. ``caller_ms`` is the caller's clock; ``not_after_ms`` 0 means no bound."""

    operations: tuple[Operation, ...]
    caller_ms: int
    request_id: str = ""
    not_after_ms: int = 0


@dataclass(frozen=True, slots=True)
class Response:
    """``status`` of the call: OK, or a refusal, and then ``results`` is empty.

    Each result begins with its own status; what follows depends on the operation.
    """

    status: str
    now_ms: int = 0
    results: tuple[tuple[object, ...], ...] = field(default=())
