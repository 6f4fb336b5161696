"""The specification of one shard, as a pure function.

    step(shard, request, now_ms) -> (shard, response)

The file is written to be read from top to bottom. A shard is a value; no function here uses a
clock, a network or a source of randomness. Tokens, nonces, jitter and time are parts of the
request, so that two executions of the same requests are equal in every field. The Lua scripts in
ddq/store/lua implement the same on real keys, and tests/stateful compares both after every step.

The states of a task:

    SCHEDULED --due, by the leader--> READY --retrieve--> LEASED --ack--> SUCCEEDED
        ^                                                   |
        +---- nack or expired lease, after a backoff -------+--no attempts left--> DEAD

CANCELLED is reached from SCHEDULED and READY, and from LEASED when the caller revokes the lease.
A held task can be PURGED. An ended task leaves a tombstone until its retention is over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from models.operations import (
    HELD,
    Ack,
    Acquire,
    Cancel,
    Collect,
    Configure,
    DeleteDead,
    Enqueue,
    Extend,
    Get,
    List,
    Nack,
    Policy,
    Promote,
    Purge,
    Reap,
    Redrive,
    Release,
    Request,
    Reschedule,
    Resign,
    Response,
    Retrieve,
    RunAgain,
    Snooze,
    State,
    Survey,
    When,
)  # fmt: skip

MAX_SKEW_MS = 1_000
"""The difference between two clocks above which a call is refused."""

Result = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """One id. Its index is ordered by ``at_ms``: due time, lease expiry, or end."""

    id: str
    content: bytes
    policy: Policy
    state: State
    incarnation: int
    revision: int
    due_ms: int
    at_ms: int
    created_ms: int
    promotion: int = 0
    attempt: int = 0
    run: int = 1
    token: bytes = b""  # of the current lease, or of the last one while it is not superseded
    settled: tuple[bytes, str] = (b"", "")  # the token that was settled last, and its verdict
    cancelled_by: str = ""  # the request that cancelled it
    last_error: str = ""
    snoozes: int = 0  # of this run


@dataclass(frozen=True, slots=True)
class Shard:
    """The state of a shard. ``counts`` are updated separately, as in the store; see conserved."""

    tasks: Mapping[str, Task] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    records: Mapping[tuple[str, str, str], tuple[Any, int]] = field(default_factory=dict)
    settings: Configure = field(default_factory=Configure)
    sequence: int = 0
    mark_ms: int = 0
    purge_watermark: int = 0
    nonce: bytes = b""
    epoch: int = 0
    leader_until_ms: int = 0
    leader_rank: int = 0
    bytes_from: int = 0  # the sequence when max_bytes was set; later tasks count


@dataclass(frozen=True, slots=True)
class Context:
    """The time and the request of an operation."""

    now_ms: int
    request_id: str
    not_after_ms: int


# Shared by all transitions -----------------------------------------------------------------


def effective(shard: Shard, task: Task | None) -> Task | None:
    """The effective view of a task: at or below the purge watermark a held task is PURGED.

    That holds also while the purge has yet to remove it from its index.
    """
    if task is not None and task.state in HELD and task.incarnation <= shard.purge_watermark:
        return replace(task, state=State.PURGED)
    return task


def count(shard: Shard, **changes: int) -> Shard:
    """Adds to counters."""
    counts = dict(shard.counts)
    for name, by in changes.items():
        counts[name] = counts.get(name, 0) + by
    return replace(shard, counts=counts)


def move(shard: Shard, task: Task, to: State, at_ms: int, **changes: Any) -> tuple[Shard, Task]:
    """Changes a task's state, with counters and revision; there is no other way to change it."""
    before = shard.tasks[task.id].state
    shard = replace(shard, sequence=shard.sequence + 1)
    task = replace(task, state=to, at_ms=at_ms, revision=shard.sequence, **changes)
    if before in HELD:
        shard = count(shard, **{before.name.lower(): -1})
    shard = count(shard, **{to.name.lower(): 1})
    if to not in HELD:
        task = replace(task, last_error="")
    return replace(shard, tasks={**shard.tasks, task.id: task}), task


def index(shard: Shard, state: State) -> list[Task]:
    """The tasks in a state, ordered by time and id; all ended tasks share one index."""
    ended = state not in HELD
    members = [
        task
        for task in shard.tasks.values()
        if (task.state not in HELD if ended else task.state == state)
    ]
    return sorted(members, key=lambda task: (task.at_ms, task.id.encode()))


def behind(members: list[Task], after: tuple[int, str] | None) -> list[Task]:
    """The entries of an index after a given one; if that has moved, from its time on."""
    if after is None:
        return members
    for position, task in enumerate(members):
        if (task.at_ms, task.id) == after:
            return members[position + 1 :]
    return [task for task in members if task.at_ms >= after[0]]


def recall(shard: Shard, kind: str, context: Context, task_id: str = "") -> Any:
    """The stored result of a request with this id; None if it is new."""
    record = shard.records.get((kind, context.request_id, task_id))
    return record[0] if record is not None and context.request_id else None


def remember(
    shard: Shard, kind: str, context: Context, value: Any, task_id: str = "", until_ms: int = 0,
    request_id: str | None = None,
) -> Shard:  # fmt: skip
    """Stores the result of a request for as long as it may be repeated."""
    name = context.request_id if request_id is None else request_id
    if not name:
        return shard
    keep_ms = max((context.not_after_ms or context.now_ms) + 2 * MAX_SKEW_MS, until_ms)
    return replace(shard, records={**shard.records, (kind, name, task_id): (value, keep_ms)})


def due_ms(when: When, now_ms: int) -> int:
    """A due time; one in the past becomes now."""
    return max(when.value_ms, now_ms) if when.absolute else now_ms + when.value_ms


def backoff_ms(policy: Policy, attempt: int, random: float) -> int:
    """The exponential backoff up to its cap, plus jitter: never less than without jitter."""
    if policy.initial_backoff_ms == 0:
        return 0
    try:
        base = policy.initial_backoff_ms * (policy.multiplier_milli / 1000) ** (attempt - 1)
    except OverflowError:
        base = math.inf
    base = min(base, policy.max_backoff_ms)
    return math.ceil(base + base * policy.jitter_milli / 1000 * random)


def end_attempt(
    shard: Shard, task: Task, now_ms: int, *, delay_ms: int | None, dead: bool, random: float
) -> tuple[Shard, Task]:
    """Ends an attempt without success: SCHEDULED again, or DEAD when no attempt is left."""
    if dead or task.attempt >= task.policy.max_attempts:
        return move(shard, task, State.DEAD, now_ms, token=b"")
    if delay_ms is None:
        delay_ms = backoff_ms(task.policy, task.attempt, random)
    return move(shard, task, State.SCHEDULED, now_ms + delay_ms, due_ms=now_ms + delay_ms)


def end_as_purged(shard: Shard, task: Task, now_ms: int) -> Shard:
    """Ends a held task as PURGED."""
    return move(shard, task, State.PURGED, now_ms, token=b"")[0]


def skip_purged(shard: Shard, task: Task, now_ms: int) -> tuple[Shard, Task | None]:
    """Ends an index entry at or below the purge watermark, and gives None in its place.

    Every operation that iterates over an index calls this for each entry.
    """
    seen = effective(shard, task)
    if seen is not None and seen.state != task.state:
        return end_as_purged(shard, task, now_ms), None
    return shard, task


# Producers ---------------------------------------------------------------------------------


def enqueue(shard: Shard, op: Enqueue, context: Context) -> tuple[Shard, Result]:
    """Creates a task, unless the id is taken. The same content is a repeat, not a conflict."""
    replacing = op.on_conflict not in {"fail", "existing"}
    task = effective(shard, shard.tasks.get(op.id))
    if replacing and (done := recall(shard, "replace", context, op.id)):
        return shard, ("CREATED", State.SCHEDULED, *done)
    if task is not None and not replacing:
        same = op.content == task.content or op.on_conflict == "existing"
        return shard, ("EXISTS" if same else "CONFLICT", *_identity(task))
    if task is not None:
        if op.expected_revision not in (None, task.revision):
            return shard, ("REVISION", *_identity(task))
        finished = task.state >= State.SUCCEEDED
        wanted = {
            "replace_finished": finished,
            "replace_scheduled": task.state == State.SCHEDULED,
            "debounce": task.state != State.LEASED,
        }
        if not wanted[op.on_conflict]:
            return shard, ("FINISHED" if finished else task.state.name, *_identity(task))
    bound = shard.settings.max_tasks
    held = sum(shard.counts.get(state.name.lower(), 0) for state in HELD)
    takes_room = task is None or shard.tasks[op.id].state not in HELD
    if bound and held >= bound and takes_room:
        return shard, ("FULL", 0, 0, 0, 0)
    freed = _counted_bytes(shard, [shard.tasks[op.id]]) if op.id in shard.tasks else 0
    held_bytes = _counted_bytes(shard, shard.tasks.values()) - freed
    most_bytes = shard.settings.max_bytes
    if most_bytes and held_bytes + len(op.content) > most_bytes:
        return shard, ("FULL", 0, 0, 0, 0)
    if task is None and replacing and op.expected_revision is not None:
        return shard, ("REVISION", 0, 0, 0, 0)
    due, since_ms = due_ms(op.when, context.now_ms), context.now_ms
    if op.on_conflict == "debounce":
        since_ms = _debounced_since(task, context.now_ms)
        due = max(context.now_ms, min(due, since_ms + op.limit_ms))
    if task is not None:
        shard = _make_room(shard, shard.tasks[op.id], context)
    shard, new = _create(shard, op.id, op.content, op.policy, due, since_ms)
    if replacing:
        shard = remember(
            shard, "replace", context, (new.revision, new.incarnation, new.due_ms), op.id
        )
    return shard, ("CREATED", *_identity(new))


def _counted_bytes(shard: Shard, tasks: Iterable[Task]) -> int:
    """What these tasks have of the bytes that max_bytes bounds."""
    return sum(
        len(task.content)
        for task in tasks
        if task.state in HELD and task.incarnation > shard.bytes_from
    )


def _create(
    shard: Shard, task_id: str, content: bytes, policy: Policy, due: int, since_ms: int
) -> tuple[Shard, Task]:
    """Creates a new incarnation of an id that no held task has."""
    shard = count(replace(shard, sequence=shard.sequence + 1), enqueued=1, scheduled=1)
    new = Task(
        task_id, content, policy, State.SCHEDULED, shard.sequence, shard.sequence, due, due,
        created_ms=since_ms,
    )  # fmt: skip
    return replace(shard, tasks={**shard.tasks, task_id: new}), new


def _identity(task: Task) -> Result:
    return (task.state, task.revision, task.incarnation, task.due_ms)


def _debounced_since(task: Task | None, now_ms: int) -> int:
    """The time of the first enqueue of those that replaced each other without having run."""
    if task is None or task.state > State.READY:
        return now_ms
    if task.attempt or task.run > 1 or task.settled[1] == "snoozed":
        return now_ms
    return task.created_ms


def _make_room(shard: Shard, task: Task, context: Context) -> Shard:
    """Ends the old incarnation; a repeated cancel of it must not affect the new one."""
    now_ms = context.now_ms
    seen = effective(shard, task)
    assert seen is not None
    if task.state in HELD and (seen.state == State.PURGED or task.state == State.DEAD):
        shard = end_as_purged(shard, task, now_ms)
    elif task.state in {State.SCHEDULED, State.READY}:
        shard, _ = move(shard, task, State.CANCELLED, now_ms)
    elif task.state == State.CANCELLED and task.cancelled_by:
        shard = remember(
            shard, "cancel", context, (task.revision, task.incarnation), task.id,
            now_ms + shard.settings.retention_ms, request_id=task.cancelled_by,
        )  # fmt: skip
    return shard


def cancel(shard: Shard, op: Cancel, context: Context) -> tuple[Shard, Result]:
    """Ends a task that has not finished; a refusal gives the task's actual state."""
    task = effective(shard, shard.tasks.get(op.id))
    if done := recall(shard, "cancel", context, op.id):
        return shard, ("ALREADY", *done)
    if task is None:
        return shard, ("NOT_FOUND", 0, 0)
    if task.state == State.CANCELLED:
        return shard, ("ALREADY", task.revision, task.incarnation)
    if task.state > State.LEASED:
        return shard, ("FINISHED", task.revision, task.incarnation)
    if task.state == State.LEASED and not op.revoke:
        return shard, ("LEASED", task.revision, task.incarnation)
    shard, task = move(
        shard, task, State.CANCELLED, context.now_ms,
        token=b"", settled=(b"", ""), cancelled_by=context.request_id,
    )  # fmt: skip
    return shard, ("CANCELLED", task.revision, task.incarnation)


def reschedule(shard: Shard, op: Reschedule, context: Context) -> tuple[Shard, Result]:
    """Changes the due time. A ready task is scheduled again, and will be promoted again."""
    if done := recall(shard, "reschedule", context, op.id):
        return shard, ("OK", *done)
    task = effective(shard, shard.tasks.get(op.id))
    if task is None:
        return shard, ("NOT_FOUND", 0, 0)
    if task.state > State.LEASED:
        return shard, ("FINISHED", task.revision, task.due_ms)
    if task.state == State.LEASED:
        return shard, ("LEASED", task.revision, task.due_ms)
    if op.expected_revision not in (None, task.revision):
        return shard, ("REVISION", task.revision, task.due_ms)
    due = due_ms(op.when, context.now_ms)
    shard, task = move(shard, task, State.SCHEDULED, due, due_ms=due, token=b"")
    shard = remember(shard, "reschedule", context, (task.revision, due), op.id)
    return shard, ("OK", task.revision, due)


# Workers -----------------------------------------------------------------------------------


def retrieve(shard: Shard, op: Retrieve, context: Context) -> tuple[Shard, Result]:
    """Leases ready tasks, each under its own token."""
    granted = recall(shard, "retrieve", context)
    if granted is not None:
        # A repeat returns those of its leases that still hold, and leases no other task.
        tasks = [(effective(shard, shard.tasks.get(task_id)), token) for task_id, token in granted]
        still = tuple(
            (task.id, token, task.at_ms)
            for task, token in tasks
            if task and task.state == State.LEASED and task.token == token
            and task.at_ms > context.now_ms
        )  # fmt: skip
        return shard, ("REPEATED", 0, still)
    leases: list[tuple[str, bytes, int]] = []
    expiry_ms = context.now_ms + op.lease_ms
    if not shard.settings.paused and not op.recall_only:
        size_bytes = 0
        for entry in index(shard, State.READY)[: len(op.tokens)]:
            # Checked before the task is leased: an oversized reply would use up an attempt.
            size_bytes += len(entry.content)
            if size_bytes > op.max_bytes and leases:
                break
            shard, task = skip_purged(shard, entry, context.now_ms)
            if task is not None:
                token = op.tokens[len(leases)]
                shard, task = move(
                    shard, task, State.LEASED, expiry_ms,
                    attempt=task.attempt + 1, token=token, settled=(b"", ""),
                )  # fmt: skip
                leases.append((task.id, token, expiry_ms))
        if leases:
            record = tuple((task_id, token) for task_id, token, _ in leases)
            shard = remember(shard, "retrieve", context, record, until_ms=expiry_ms)
    ready = 0 if shard.settings.paused else len(index(shard, State.READY))
    return shard, ("LEASED", ready, tuple(leases))


def ack(shard: Shard, op: Ack, context: Context) -> tuple[Shard, Result]:
    """Finishes a task; the token holds until it is superseded, also after the lease has expired."""
    task = effective(shard, shard.tasks.get(op.id))
    if task is None:
        return shard, ("NOT_FOUND", 0)
    if op.token and task.token == op.token and task.state <= State.LEASED:
        shard, task = move(
            shard, task, State.SUCCEEDED, context.now_ms, token=b"", settled=(op.token, "acked")
        )
        return shard, ("OK", task.revision)
    return shard, ("OK" if task.settled == (op.token, "acked") else "LEASE_LOST", task.revision)


def run_again(shard: Shard, op: RunAgain, context: Context) -> tuple[Shard, Result]:
    """Finishes the attempt and creates the next run, both or neither; recorded under the token."""
    by_token = replace(context, request_id=op.token.hex())
    if done := recall(shard, "next", by_token, op.id):
        return shard, ("OK", *done)
    task = effective(shard, shard.tasks.get(op.id))
    if task is None:
        return shard, ("NOT_FOUND", 0, 0)
    if not op.token or task.token != op.token or task.state > State.LEASED:
        return shard, ("LEASE_LOST", 0, 0)
    content = task.content if op.content is None else op.content
    due = due_ms(op.when, context.now_ms)
    shard, _ = move(shard, task, State.SUCCEEDED, context.now_ms)
    shard, new = _create(shard, op.id, content, task.policy, due, context.now_ms)
    shard = remember(shard, "next", by_token, (new.incarnation, due), op.id)
    return shard, ("OK", new.incarnation, due)


def nack(shard: Shard, op: Nack, context: Context) -> tuple[Shard, Result]:
    """Ends the attempt without success: SCHEDULED after a backoff, or DEAD."""
    task = effective(shard, shard.tasks.get(op.id))
    if task is None:
        return shard, ("NOT_FOUND", 0, 0, 0)
    if task.state == State.LEASED and task.token == op.token:
        dead = op.dead or task.attempt >= task.policy.max_attempts
        task = replace(
            task, token=b"", last_error=op.error,
            settled=(op.token, "dead" if dead else "retried"),
        )  # fmt: skip
        shard, task = end_attempt(
            shard, task, context.now_ms, delay_ms=op.delay_ms, dead=dead, random=op.random
        )
        return shard, ("OK", task.state, task.revision, task.due_ms)
    if task.settled == (op.token, "retried"):
        return shard, ("OK", State.SCHEDULED, task.revision, task.due_ms)
    if task.settled == (op.token, "dead"):
        return shard, ("OK", State.DEAD, task.revision, task.due_ms)
    return shard, ("LEASE_LOST", task.state, task.revision, 0)


def extend(shard: Shard, op: Extend, context: Context) -> tuple[Shard, Result]:
    """Prolongs a lease from now; never shortens it."""
    task = effective(shard, shard.tasks.get(op.id))
    if task is None:
        return shard, ("NOT_FOUND", 0, 0)
    if task.state != State.LEASED or task.token != op.token:
        return shard, ("LEASE_LOST", task.revision, 0)
    expiry_ms = max(task.at_ms, context.now_ms + op.lease_ms)
    shard, task = move(shard, task, State.LEASED, expiry_ms)
    return shard, ("OK", task.revision, expiry_ms)


def release(shard: Shard, op: Release, context: Context) -> tuple[Shard, Result]:
    """Makes the task READY again under its old due time; the attempt does not count."""
    task = effective(shard, shard.tasks.get(op.id))
    if task is None:
        return shard, ("NOT_FOUND", 0)
    if task.state == State.LEASED and task.token == op.token:
        shard, task = move(
            shard, task, State.READY, task.due_ms,
            attempt=task.attempt - 1, token=b"", settled=(op.token, "released"),
        )  # fmt: skip
        return shard, ("OK", task.revision)
    return shard, ("OK" if task.settled == (op.token, "released") else "LEASE_LOST", task.revision)


def snooze(shard: Shard, op: Snooze, context: Context) -> tuple[Shard, Result]:
    """Makes the task SCHEDULED again after the delay; the attempt does not count."""
    task = effective(shard, shard.tasks.get(op.id))
    if task is None:
        return shard, ("NOT_FOUND", 0, 0)
    if task.state == State.LEASED and task.token == op.token:
        if task.snoozes >= op.limit:
            return shard, ("SNOOZED_OUT", task.revision, 0)
        due = context.now_ms + op.delay_ms
        shard, task = move(
            shard, task, State.SCHEDULED, due, due_ms=due, attempt=task.attempt - 1,
            snoozes=task.snoozes + 1, token=b"", settled=(op.token, "snoozed"),
        )  # fmt: skip
        return shard, ("OK", task.revision, due)
    if task.settled == (op.token, "snoozed"):
        return shard, ("OK", task.revision, task.due_ms)
    return shard, ("LEASE_LOST", task.revision, 0)


# Readers -----------------------------------------------------------------------------------


def get(shard: Shard, op: Get, context: Context) -> tuple[Shard, Result]:
    """Returns the effective view of a task."""
    task = effective(shard, shard.tasks.get(op.id))
    return shard, ("NOT_FOUND",) if task is None else ("OK", _view(task))


def listing(shard: Shard, op: List, context: Context) -> tuple[Shard, Result]:
    """Lists entries of one index; those in another state of a shared index are skipped."""
    page = behind(index(shard, op.state), op.after)[: op.limit]
    after = (page[-1].at_ms, page[-1].id) if page else op.after
    seen = [effective(shard, task) for task in page]
    views = tuple(_view(task) for task in seen if task is not None and task.state == op.state)
    return shard, ("OK", int(len(page) == op.limit), after, views)


def _view(task: Task) -> Result:
    return (
        task.id, task.state, task.revision, task.incarnation, task.promotion, task.attempt,
        task.run, task.due_ms, task.last_error,
    )  # fmt: skip


def survey(shard: Shard, op: Survey, context: Context) -> tuple[Shard, Result]:
    """Returns the counters, without those at zero."""
    return shard, ("OK", {name: value for name, value in shard.counts.items() if value})


# Operators ---------------------------------------------------------------------------------


def redrive(shard: Shard, op: Redrive, context: Context) -> tuple[Shard, Result]:
    """Starts a new run of dead tasks, but not of those that died after the request began."""
    watermark, began_ms, state, after = _walk(shard, "redrive", context, State.DEAD)

    def again(shard: Shard, task: Task) -> Shard:
        return move(
            shard, task, State.SCHEDULED, context.now_ms, run=task.run + 1, attempt=0, snoozes=0,
            due_ms=context.now_ms, token=b"", settled=(b"", ""),
        )[0]  # fmt: skip

    redriven, done, statuses = 0, 1, []
    for task_id in op.ids:
        task = effective(shard, shard.tasks.get(task_id))
        if task is None:
            statuses.append("NOT_FOUND")
        elif recall(shard, "redriven", context, task_id):
            statuses.append("OK")
        elif task.state != State.DEAD or task.revision > watermark:
            statuses.append("NOT_DEAD")
        else:
            shard = remember(again(shard, task), "redriven", context, "1", task_id)
            redriven += 1
            statuses.append("OK")
    if not op.ids:
        page = behind(index(shard, State.DEAD), after)[: op.limit]
        done = int(len(page) < op.limit)
        for entry in page:
            if entry.at_ms > began_ms:
                done = 1
                break
            shard, task = skip_purged(shard, entry, context.now_ms)
            if task is not None and task.revision > watermark:
                after = (task.at_ms, task.id)
            elif task is not None:
                shard = again(shard, task)
                redriven += 1
    shard = remember(shard, "redrive", context, (watermark, began_ms, state, after))
    return shard, (redriven, done, tuple(statuses))


def _walk(shard: Shard, kind: str, context: Context, first: State) -> Result:
    """The progress of a request of many steps.

    That is the sequence and the time of its first step, after which later tasks are excluded, and
    the position at which the last step ended: index and entry.
    """
    return recall(shard, kind, context) or (shard.sequence, context.now_ms, first, None)


def delete_dead(shard: Shard, op: DeleteDead, context: Context) -> tuple[Shard, Result]:
    """Ends a dead task as PURGED."""
    task = effective(shard, shard.tasks.get(op.id))
    if task is None:
        return shard, ("NOT_FOUND", 0)
    if task.state == State.PURGED:
        return shard, ("OK", task.revision)
    if task.state != State.DEAD:
        return shard, ("NOT_DEAD", task.revision)
    if op.expected_revision not in (None, task.revision):
        return shard, ("REVISION", task.revision)
    shard = end_as_purged(shard, task, context.now_ms)
    return shard, ("OK", shard.sequence)


def purge(shard: Shard, op: Purge, context: Context) -> tuple[Shard, Result]:
    """Ends the held tasks as PURGED, in bounded steps.

    The first step sets the purge watermark to the sequence: no task at or below it moves again. The
    steps then remove those tasks, index by index; each continues where the last one ended.
    """
    watermark, began_ms, state, after = _walk(shard, "purge", context, State.SCHEDULED)
    shard = replace(shard, purge_watermark=max(shard.purge_watermark, watermark))
    purged, limit = 0, op.limit
    while limit > 0 and state != 0:
        page = behind(index(shard, state), after)[:limit]
        limit -= len(page)
        for entry in page:
            shard, task = skip_purged(shard, entry, context.now_ms)
            if task is None:
                purged += 1
            else:
                after = (task.at_ms, task.id)
        if limit > 0:
            following = {State.SCHEDULED: State.READY, State.READY: State.LEASED,
                         State.LEASED: State.DEAD, State.DEAD: 0}  # fmt: skip
            state, after = following[state], None
    shard = remember(shard, "purge", context, (watermark, began_ms, state, after))
    return shard, (purged, int(state == 0))


def configure(shard: Shard, op: Configure, context: Context) -> tuple[Shard, Result]:
    """Replaces the settings."""
    bytes_from = shard.bytes_from
    if op.max_bytes and not shard.settings.max_bytes:
        # The tasks that are held now do not count.
        bytes_from = shard.sequence
    return replace(shard, settings=op, bytes_from=bytes_from), ("OK",)


# Schedulers --------------------------------------------------------------------------------


def _leads(shard: Shard, nonce: bytes, epoch: int) -> bool:
    """Whether nonce and epoch are the leader's; time does not count, clocks may differ."""
    return bool(shard.nonce) and (shard.nonce, shard.epoch) == (nonce, epoch)


def acquire(shard: Shard, op: Acquire, context: Context) -> tuple[Shard, Result]:
    """Gives leadership, under a fresh nonce and the next epoch.

    The lease of the last leader must be over, or the challenger must have a higher rank.
    """
    status = "TAKEN"
    outranks = op.challenge and op.rank > shard.leader_rank
    if _leads(shard, op.held_nonce, op.held_epoch):
        status = "KEPT"
    elif not shard.nonce or shard.leader_until_ms <= context.now_ms or outranks:
        status = "ACQUIRED"
        shard = replace(shard, nonce=op.nonce, epoch=shard.epoch + 1, leader_rank=op.rank)
    if status != "TAKEN":
        shard = replace(shard, leader_until_ms=context.now_ms + op.lease_ms)
    return shard, (status, shard.epoch, shard.leader_until_ms - context.now_ms)


def resign(shard: Shard, op: Resign, context: Context) -> tuple[Shard, Result]:
    """Ends a leadership; the next scheduler that acquires it leads."""
    if not _leads(shard, op.nonce, op.epoch):
        return shard, ("NOT_LEADER",)
    return replace(shard, nonce=b"", leader_until_ms=0, leader_rank=0), ("RESIGNED",)


def promote(shard: Shard, op: Promote, context: Context) -> tuple[Shard, Result]:
    """Makes due tasks READY, each exactly once."""
    if not _leads(shard, op.nonce, op.epoch):
        return shard, ("NOT_LEADER", 0, None)
    shard = replace(shard, leader_until_ms=context.now_ms + op.lease_ms)
    moved, late_ms = 0, None
    due = [task for task in index(shard, State.SCHEDULED) if task.at_ms <= context.now_ms]
    for entry in [] if shard.settings.paused else due[: op.limit]:
        shard, task = skip_purged(shard, entry, context.now_ms)
        if task is not None:
            shard, _ = move(shard, task, State.READY, task.due_ms, promotion=task.promotion + 1)
            late_ms = context.now_ms - task.due_ms if moved == 0 else late_ms
            moved += 1
    return shard, ("OK", moved, late_ms)


def reap(shard: Shard, op: Reap, context: Context) -> tuple[Shard, Result]:
    """Ends attempts whose lease has expired.

    The token still settles the task until it is leased again, cancelled, rescheduled or dead.
    """
    if not _leads(shard, op.nonce, op.epoch):
        return shard, ("NOT_LEADER", 0)
    shard = replace(shard, leader_until_ms=context.now_ms + op.lease_ms)
    moved = 0
    expired = [task for task in index(shard, State.LEASED) if task.at_ms <= context.now_ms]
    for entry, random in zip(expired, op.randoms, strict=False):
        shard, task = skip_purged(shard, entry, context.now_ms)
        if task is not None:
            task = replace(task, last_error=f"the lease of attempt {task.attempt} expired")
            shard, _ = end_attempt(
                shard, task, context.now_ms, delay_ms=None, dead=False, random=random
            )
            moved += 1
    return shard, ("OK", moved)


def collect(shard: Shard, op: Collect, context: Context) -> tuple[Shard, Result]:
    """Removes tombstones and request records whose retention is over."""
    old_ms = context.now_ms - shard.settings.retention_ms
    tombstones = [t for t in index(shard, State.SUCCEEDED) if t.at_ms <= old_ms][: op.limit]
    expired = sorted(
        (keep_ms, key) for key, (_, keep_ms) in shard.records.items() if keep_ms <= context.now_ms
    )[: op.limit]
    gone = {task.id for task in tombstones}
    keys = {key for _, key in expired}
    shard = replace(
        shard,
        tasks={key: task for key, task in shard.tasks.items() if key not in gone},
        records={key: record for key, record in shard.records.items() if key not in keys},
    )
    return shard, (len(tombstones), len(expired))


# The step ----------------------------------------------------------------------------------

TRANSITIONS: Mapping[type, Callable[[Shard, Any, Context], tuple[Shard, Result]]] = {
    Enqueue: enqueue, Retrieve: retrieve, Ack: ack, RunAgain: run_again, Nack: nack,
    Extend: extend, Release: release, Snooze: snooze, Cancel: cancel,
    Reschedule: reschedule, Get: get, List: listing, Redrive: redrive, DeleteDead: delete_dead,
    Purge: purge, Configure: configure, Survey: survey, Acquire: acquire, Resign: resign,
    Promote: promote, Reap: reap, Collect: collect,
}  # fmt: skip


def step(shard: Shard, request: Request, now_ms: int) -> tuple[Shard, Response]:
    """Executes one call at one time.

    Args:
        now_ms: the store's clock; within the shard time never runs backwards.

    Returns:
        The shard afterwards, and the response. A refused call returns the shard unchanged.
    """
    if abs(now_ms - request.caller_ms) > MAX_SKEW_MS or shard.mark_ms - now_ms > MAX_SKEW_MS:
        return shard, Response("CLOCK_UNSAFE")
    now_ms = max(now_ms, shard.mark_ms)
    if request.not_after_ms and now_ms > request.not_after_ms:
        return shard, Response("REQUEST_EXPIRED")
    # A call advances the sequence even if it changes nothing else: on real keys, WAIT has no
    # effect after a call that did not write.
    shard = replace(shard, mark_ms=now_ms, sequence=shard.sequence + 1)
    context = Context(now_ms, request.request_id, request.not_after_ms)
    results = []
    for operation in request.operations:
        shard, result = TRANSITIONS[type(operation)](shard, operation, context)
        results.append(result)
    return shard, Response("OK", now_ms, tuple(results))


def conserved(shard: Shard) -> bool:
    """Whether G11 holds: the counters add up, and those of held tasks are exact."""
    counts = dict(shard.counts)
    held = {state.name.lower(): len(_in_state(shard.tasks.values(), state)) for state in HELD}
    exact = all(counts.get(name, 0) == number for name, number in held.items())
    ended = sum(counts.get(name, 0) for name in ("succeeded", "cancelled", "purged"))
    return exact and counts.get("enqueued", 0) == sum(held.values()) + ended


def _in_state(tasks: Iterable[Task], state: State) -> list[Task]:
    return [task for task in tasks if task.state == state]
