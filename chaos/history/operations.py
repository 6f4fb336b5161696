"""What is asked of ddq and what it answers, as a history keeps it: plain, small, with units.

Payloads are kept as a short text that stands for them, tokens and lineage tags as hex. Times that
end in ``_ms`` are the store's, ms since 1970.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Literal

import msgspec

OnConflict = Literal["fail", "existing", "replace_scheduled", "replace_finished", "debounce"]
State = Literal["scheduled", "ready", "leased", "succeeded", "dead", "cancelled", "purged"]

HELD: tuple[State, ...] = ("scheduled", "ready", "leased", "dead")
ENDED: tuple[State, ...] = ("succeeded", "cancelled", "purged")


class Value(msgspec.Struct, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """A request, a reply or a part of one. Holds no cycles, so the collector need not look."""


class RetrySettings(Value):
    """When an attempt that failed is tried again; None: as the topic has it."""

    max_attempts: int | None = None
    initial_backoff_ms: int | None = None
    max_backoff_ms: int | None = None
    multiplier: float | None = None
    jitter: float | None = None


class Stamp(Value):
    """What each reply says of the store.

    Attributes:
        store_ms: its clock.
        lineage: the tag of the shard's last transition.
        durability: what the reply waited for: fast, quorum or all; "" where it does not say.
        replicas_acked: how many replicas had confirmed it.
    """

    revision: int = 0
    store_ms: int = 0
    lineage: str = ""
    durability: str = ""
    replicas_acked: int = 0


class Enqueue(Value):
    """``delay_ms`` from when the store takes it, or ``due_ms``; neither: now."""

    topic: str
    id: str
    payload: str = ""
    delay_ms: int | None = None
    due_ms: int | None = None
    on_conflict: OnConflict = "fail"
    expected_revision: int | None = None
    policy: RetrySettings | None = None
    debounce_limit_ms: int | None = None

    @property
    def replaces(self) -> bool:
        """Whether it may end what holds the id."""
        return self.on_conflict not in {"fail", "existing"}


class Enqueued(Stamp):
    """``created`` False: it was there already, perhaps by an earlier attempt of this request."""

    created: bool = True
    state: State = "scheduled"
    incarnation: int = 0
    due_ms: int = 0


class Retrieve(Value):
    """``request_id`` is the same in a repeat that asks for the same leases."""

    topics: list[str]
    request_id: str = ""
    max_tasks: int = 1
    lease_ms: int | None = None
    wait_ms: int = 0


class Lease(Stamp):
    """One task as it was handed out."""

    topic: str = ""
    id: str = ""
    token: str = ""
    payload: str = ""
    incarnation: int = 0
    promotion: int = 0
    attempt: int = 0
    run: int = 1
    due_ms: int = 0
    expire_ms: int = 0
    policy: RetrySettings | None = None


class Retrieved(Value):
    """Perhaps nothing."""

    leases: list[Lease] = []


class Settle(Value):
    """Ack and release: the task and the proof of the right to it."""

    topic: str
    id: str
    token: str


class RunAgain(Settle):
    """An ack, and the next run under the same id; ``payload`` None: that of this run."""

    delay_ms: int | None = None
    due_ms: int | None = None
    payload: str | None = None


class Nack(Settle):
    """``delay_ms`` None: by the retry policy; ``dead``: whatever attempts are left."""

    delay_ms: int | None = None
    dead: bool = False


class Snooze(Settle):
    """Due again ``delay_ms`` from when the store takes it; the attempt does not count."""

    delay_ms: int = 0


class Extend(Settle):
    """``lease_ms`` None: the topic's default."""

    lease_ms: int | None = None


class Settled(Stamp):
    """Ack and release."""


class RanAgain(Stamp):
    """The next run; the revision is the one at which it was made."""

    incarnation: int = 0
    due_ms: int = 0


class Nacked(Stamp):
    """Scheduled again, or dead."""

    state: State = "scheduled"
    due_ms: int = 0


class Snoozed(Stamp):
    """Due again then."""

    due_ms: int = 0


class Extended(Stamp):
    """The lease runs until then."""

    expire_ms: int = 0


class Cancel(Value):
    """``revoke``: also a leased one."""

    topic: str
    id: str
    revoke: bool = False


class Cancelled(Stamp):
    """``already``: an earlier request, or an earlier attempt of this one, had cancelled it."""

    incarnation: int = 0
    already: bool = False


class Reschedule(Value):
    """Another due time; neither: now."""

    topic: str
    id: str
    delay_ms: int | None = None
    due_ms: int | None = None
    expected_revision: int | None = None


class Rescheduled(Stamp):
    """Due then."""

    due_ms: int = 0


class Get(Value):
    """Looks at one task."""

    topic: str
    id: str


class Seen(Stamp):
    """A task as it was; the store's clock and lineage are not part of this reply."""

    state: State = "scheduled"
    payload: str | None = None
    incarnation: int = 0
    promotion: int = 0
    attempt: int = 0
    run: int = 1
    due_ms: int = 0
    expire_ms: int = 0


class List(Value):
    """Looks at all tasks of a topic in one state."""

    topic: str
    state: State


class ListedTask(Seen):
    """One of them, as it was at some moment of the request."""

    id: str = ""


class Listed(Value):
    """All of them, page by page; a task that moved meanwhile may be missed or doubled."""

    tasks: list[ListedTask] = []


class DeleteDead(Value):
    """Ends a dead task as purged; ``expected_revision``: only if it has this one."""

    topic: str
    id: str
    expected_revision: int | None = None


class Topic(Value):
    """Purge, stats, pause, resume: of a whole topic."""

    topic: str


class CreateTopic(Value):
    """A topic of its own beside those of the run; it has no journal."""

    topic: str
    shards: int = 1


class Redrive(Value):
    """A new run for dead tasks; no ids: all."""

    topic: str
    ids: list[str] = []


class Counted(Value):
    """How many tasks it was, as far as the replies say."""

    count: int = 0


class Counts(Value):
    """G11's equation, at one moment."""

    enqueued: int = 0
    scheduled: int = 0
    ready: int = 0
    leased: int = 0
    succeeded: int = 0
    dead: int = 0
    cancelled: int = 0
    purged: int = 0
    set_aside: int = 0

    @property
    def accounted(self) -> int:
        """The right side."""
        return (
            self.scheduled
            + self.ready
            + self.leased
            + self.succeeded
            + self.dead
            + self.cancelled
            + self.purged
            + self.set_aside
        )


class Stats(Value):
    """A count of each shard: they are taken at different moments, so each must add up alone."""

    shards: list[Counts] = []


CUT_OFF = "CUT_OFF"
"""Reason of an operation whose caller gave up by itself, which says nothing of the system."""


class Failed(Value):
    """Why there is no reply: the error's reason, and its message."""

    error: str
    message: str = ""


OPERATIONS: dict[str, tuple[type[Value], type[Value]]] = {
    "enqueue": (Enqueue, Enqueued),
    "retrieve": (Retrieve, Retrieved),
    "ack": (Settle, Settled),
    "run_again": (RunAgain, RanAgain),
    "nack": (Nack, Nacked),
    "extend": (Extend, Extended),
    "release": (Settle, Settled),
    "snooze": (Snooze, Snoozed),
    "cancel": (Cancel, Cancelled),
    "reschedule": (Reschedule, Rescheduled),
    "get": (Get, Seen),
    "list": (List, Listed),
    "redrive": (Redrive, Counted),
    "delete_dead": (DeleteDead, Stamp),
    "purge": (Topic, Counted),
    "create_topic": (CreateTopic, Value),
    "delete_topic": (Topic, Counted),
    "pause": (Topic, Value),
    "resume": (Topic, Value),
    "stats": (Topic, Stats),
}
"""What each operation asks and answers. The batches are these with ``_batch`` behind the name."""

READS = frozenset({"get", "list", "stats"})
"""They change nothing, so that it does not matter whether they were carried out."""

BATCHES = frozenset({"enqueue", "ack", "nack", "extend", "release", "snooze", "cancel"})


# What happens beside the operations ----------------------------------------------------------


def digest(payload: bytes) -> str:
    """A short text that stands for a payload: itself, where it is one already."""
    if len(payload) <= 64 and payload.isascii() and payload.decode("ascii").isprintable():
        return payload.decode("ascii")
    return f"sha256:{sha256(payload).hexdigest()[:32]}:{len(payload)}"


def plain(value: Any) -> Any:
    """As dicts and lists, for reports."""
    return msgspec.to_builtins(value)
