"""The requests to a shard and its responses: plain values.

A Request is one call: operations of one kind that run at one time, under one not_after. The
operations of producers, workers and operators come first, those of schedulers last.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum


class State(IntEnum):
    """The state of a task. The first three, and DEAD, keep the payload."""

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
    """When a failed attempt is retried; the multiplier and jitter are in thousandths."""

    max_attempts: int = 5
    initial_backoff_ms: int = 1_000
    max_backoff_ms: int = 600_000
    multiplier_milli: int = 2_000
    jitter_milli: int = 100


@dataclass(frozen=True, slots=True)
class When:
    """A delay from now, or a point in time (ms since 1970)."""

    value_ms: int = 0
    absolute: bool = False


# Requests of producers and workers ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Enqueue:
    """Creates a task. ``content`` stands for everything that was sent except the id."""

    id: str
    content: bytes
    when: When = When()
    policy: Policy = Policy()
    on_conflict: str = "fail"  # "existing", "replace_scheduled", "replace_finished", "debounce"
    expected_revision: int | None = None
    limit_ms: int = 0  # of a debounce: by how much it may be deferred in all


@dataclass(frozen=True, slots=True)
class Retrieve:
    """Leases at most one task per token, ordered by due time, within ``max_bytes`` of payload."""

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
    """Finishes the attempt and enqueues the id's next run; with ``content`` None, the same one."""

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
    """Returns the lease; its attempt does not count."""

    id: str
    token: bytes


@dataclass(frozen=True, slots=True)
class Snooze:
    """Defers the task; refused after ``limit`` snoozes of the run."""

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
    """Changes the due time of a task that is scheduled or ready."""

    id: str
    when: When
    expected_revision: int | None = None


@dataclass(frozen=True, slots=True)
class Get:
    """Reads one task."""

    id: str


@dataclass(frozen=True, slots=True)
class List:
    """Reads up to ``limit`` entries of a state's index after ``after``: (time in ms, id)."""

    state: State
    limit: int
    after: tuple[int, str] | None = None


# Requests of operators ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Redrive:
    """Starts a new run of the named dead tasks, or of up to ``limit`` of all."""

    ids: tuple[str, ...] = ()
    limit: int = 0


@dataclass(frozen=True, slots=True)
class DeleteDead:
    """Ends a dead task as purged."""

    id: str
    expected_revision: int | None = None


@dataclass(frozen=True, slots=True)
class Purge:
    """Runs one step of a purge over up to ``limit`` entries; 0 only sets the watermark."""

    limit: int


@dataclass(frozen=True, slots=True)
class Configure:
    """Replaces the settings of the shard."""

    paused: bool = False
    max_tasks: int = 0
    retention_ms: int = 3_600_000
    max_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Survey:
    """Reads the counters."""


# Requests of schedulers --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Acquire:
    """Acquires the leadership, or keeps the one of (held_nonce, held_epoch).

    A challenge also takes it from a live leader of lower rank.
    """

    nonce: bytes
    lease_ms: int
    held_nonce: bytes = b""
    held_epoch: int = 0
    rank: int = 0
    challenge: bool = False


@dataclass(frozen=True, slots=True)
class Resign:
    """Ends the leadership."""

    nonce: bytes
    epoch: int


@dataclass(frozen=True, slots=True)
class Promote:
    """Makes up to ``limit`` due tasks ready."""

    nonce: bytes
    epoch: int
    lease_ms: int
    limit: int


@dataclass(frozen=True, slots=True)
class Reap:
    """Ends attempts whose lease has expired, at most one per random number."""

    nonce: bytes
    epoch: int
    lease_ms: int
    randoms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Collect:
    """Removes up to ``limit`` tombstones and request records whose retention is over."""

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
    """The answer to a call: ``status`` is OK, or a refusal with empty ``results``.

    Each result begins with its own status; the other elements depend on the operation.
    """

    status: str
    now_ms: int = 0
    results: tuple[tuple[object, ...], ...] = field(default=())
