"""Is there any order of a task's operations that the specification explains?

A small search after Wing and Gong, per task: each operation takes effect at one moment between its
request and its reply; those whose outcome is unknown take effect at any later moment, or never.
Between them the store may do by itself what no reply reports: promote, reap, forget, and lease
to a Retrieve whose reply was lost. ``models.queue.step`` says what follows from what.

It errs on one side only. Time is taken as early as it can be and jitter as nothing, a revision is
compared but not reckoned: an order that is refused is impossible, one that is found might still be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from chaos.checker.cases import Case
from chaos.checker.view import MS, RunView
from chaos.history.operations import (
    Stamp,
)
from chaos.history.reader import Op
from models import operations as spec
from models.operations import State
from models.queue import Shard, Task, step

STATUS = {
    "TASK_NOT_FOUND": "NOT_FOUND",
    "TASK_LEASED": "LEASED",
    "TASK_FINISHED": "FINISHED",
}
"""Errors that say something of the task at the moment of the reply."""


def denials(case: Case) -> list[Op]:
    """Refused cancels and reschedules that say something of the task."""
    asked = (*case.cancels, *case.reschedules)
    return [op for op in asked if op.outcome == "fail" and op.error in STATUS]


class TooLargeError(Exception):
    """The search came to its bound."""


@dataclass(frozen=True, slots=True)
class _Node:
    """A task in the middle of an order.

    Attributes:
        done: which operations have taken effect, as bits.
        incarnation: the true one's number where a reply has named it; 0: not known.
        revision: the greatest that a reply has named so far.
        ghosts: leases so far that no reply names.
    """

    done: int
    task: Task | None
    mark_ms: int
    incarnation: int = 0
    revision: int = 0
    ghosts: int = 0


class Search:
    """One task's operations.

    Args:
        doubted: errors to be explained; the other errors had no effect and are left out.
        optional: operations that may have taken effect, whatever their replies say.
        ignored: fields of leases that are not compared.
    """

    def __init__(
        self,
        view: RunView,
        case: Case,
        doubted: list[Op],
        *,
        optional: Iterable[Op] = (),
        ignored: Collection[str] = (),
    ) -> None:
        self._optional = {id(op) for op in optional}
        self._compared = [name for name in ("promotion", "run", "attempt") if name not in ignored]
        self._view = view
        self._case = case
        self._policy = view.policy(case)
        settings = view.settings(case.topic)
        self._retention_ms = settings.retention_ms
        self._lease_ms = settings.lease_ms
        asked = (
            *case.makers,
            *case.reschedules,
            *case.cancels,
            *case.acks,
            *case.nacks,
            *case.extends,
            *case.releases,
            *case.snoozes,
            *case.deletes,
            *_purges(view, case),
        )
        doubt = {id(op) for op in doubted}
        ops = [
            (op.begin_ns, op.end_ns, op)
            for op in asked
            if (id(op) in doubt if op.outcome == "fail" else op.may_have_happened)
        ]
        # A Retrieve that repeats an earlier reply changes nothing; one that reports what an earlier
        # one did, whose reply was lost, may name that one's time.
        ops += [(d.begin_ns, d.end_ns, d.op) for d in case.deliveries]
        self._redriven = bool(case.redrives or view.grouped.redrives_all.get(case.topic))
        self._ops = sorted(ops, key=lambda found: found[:2])
        known = {delivery.op.index for delivery in case.deliveries}
        ghosts = [
            op
            for op in (*view.lost_retrieves, *self._lapsed_retrieves())
            if op.fate != "absent" and op.index not in known and case.topic in op.request.topics
        ]
        self._ghosts = [(op.begin_ns, self._ghost_until_ms(op)) for op in ghosts]
        self._ghost_ms = min((op.request.lease_ms or self._lease_ms for op in ghosts), default=0)

    def _lapsed_retrieves(self) -> Iterable[Op]:
        """Retrieves that may have leased the task although their replies do not name it.

        The client library repeats a Retrieve whose reply was lost. The repeat names no lease that
        has expired by then. A journal shows such a lease.
        """
        if self._view.journaled(self._case.topic):
            known = {delivery.lease.revision for delivery in self._case.deliveries}
            leases = (entry for _, entry in self._case.entries if entry.op == "lease")
            if all(entry.revision in known for entry in leases):
                return ()
        error_ns = self._view.bounds.clock_error_ms * MS
        return (
            op
            for op in self._view.grouped.retrieves
            if op.ok
            and op.end_ns - op.begin_ns + error_ns >= (op.request.lease_ms or self._lease_ms) * MS
        )

    def _ghost_until_ms(self, op: Op) -> float:
        """The latest moment by the store's clock at which such a Retrieve can have leased it."""
        if not op.ok or not self._view.run.wall_ms:
            return float("inf")
        lease_ms = op.request.lease_ms or self._lease_ms
        error_ms = self._view.bounds.clock_error_ms
        return self._view.run.wall_ms + op.end_ns / MS + error_ms - lease_ms

    def explains(self) -> bool:
        """Whether some order of them all is possible.

        Raises:
            TooLargeError: not known within the bound.
        """
        seen: set[_Node] = set()
        stack = [_Node(0, None, 0)]
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            if len(seen) > self._view.bounds.search_nodes:
                raise TooLargeError
            left = [
                (position, *found)
                for position, found in enumerate(self._ops)
                if not node.done >> position & 1
            ]
            needed = [end_ns for _, _, end_ns, op in left if not self._may_be_left(op)]
            if not needed:
                return True
            # What comes next began before any of the rest was over.
            limit_ns = min(needed)
            stack += self._hidden(node, limit_ns)
            for position, begin_ns, _, op in left:
                if begin_ns <= limit_ns:
                    stack += self._take(node, position, op)
        return False

    def _may_be_left(self, op: Op) -> bool:
        return op.outcome == "info" or id(op) in self._optional

    # What was asked for ------------------------------------------------------------------------

    def _take(self, node: _Node, position: int, op: Op) -> Iterator[_Node]:
        """The node behind this operation; none if the reply contradicts it."""
        reply = self._reply(op)
        if op.ok and op.op == "run_again" and node.done & self._same_token(op):
            # It was carried out when it was first asked for, and only its reply is repeated.
            yield replace(node, done=node.done | 1 << position)
            return
        revision = int(reply.revision) if isinstance(reply, Stamp) else 0
        if revision and revision < node.revision:
            return
        now_ms = max(node.mark_ms, self._moment_ms(op, reply))
        if now_ms > self._latest_ms(op, reply):
            return
        task = node.task
        incarnation = getattr(reply, "incarnation", 0)
        after, status = self._apply(node, op, now_ms)
        if op.outcome == "fail" and status != STATUS.get(op.error):
            return
        if op.outcome == "ok" and not _fits(op, status):
            return
        now = (
            node.incarnation
            if after is not None and task is not None and (after.incarnation == task.incarnation)
            else 0
        )
        # The reply to a repeat may name when a later attempt was due, or a later incarnation.
        repeated = op.op == "enqueue" and op.ok and not op.reply.created
        if repeated and status == "CREATED" and len(self._case.makers) > 1:
            incarnation = 0
        if incarnation and now and incarnation != now:
            return
        due_ms = 0 if repeated else getattr(reply, "due_ms", 0)
        if after is not None and after.state == State.SCHEDULED and due_ms:
            after = replace(after, due_ms=due_ms, at_ms=due_ms)
        yield _Node(
            node.done | 1 << position,
            after,
            now_ms,
            incarnation or now,
            max(node.revision, revision if _is_exact(op) else 0),
            node.ghosts,
        )

    def _same_token(self, op: Op) -> int:
        """The other run_agains with its token, as bits."""
        return sum(
            1 << position
            for position, (_, _, other) in enumerate(self._ops)
            if other is not op
            and other.op == "run_again"
            and other.request.token == op.request.token
        )

    def _reply(self, op: Op) -> Any:
        if op.op == "retrieve" and op.reply is not None:
            return next(lease for lease in op.reply.leases if lease.id == self._case.id)
        return op.reply

    def _latest_ms(self, op: Op, reply: Any) -> float:
        """The latest moment of an operation by the store's clock."""
        store_ms = getattr(reply, "store_ms", 0)
        if store_ms:
            return float(store_ms)
        if not self._view.run.wall_ms or op.outcome == "info":
            return float("inf")
        return self._view.run.wall_ms + op.end_ns / MS + self._view.bounds.clock_error_ms

    def _moment_ms(self, op: Op, reply: Any) -> int:
        """The earliest moment of an operation by the store's clock; 0: the reply does not say."""
        if reply is None:
            return 0
        store_ms = int(getattr(reply, "store_ms", 0))
        if op.op == "enqueue" and op.request.delay_ms is not None and reply.created:
            return int(min(store_ms, reply.due_ms - op.request.delay_ms))
        if op.op == "retrieve":
            return self._case.tokens[reply.token].early_ms
        # It may have been a repeat that was answered so late.
        return 0

    def _apply(self, node: _Node, op: Op, now_ms: int) -> tuple[Task | None, str]:
        request, task_id = op.request, self._case.id
        if op.op == "enqueue":
            # A replacement also ends what was there, in whatever state its reply says it was.
            call: spec.Operation = spec.Enqueue(
                task_id,
                request.payload.encode(),
                spec.When(request.delay_ms or 0),
                spec.Policy(
                    self._policy.max_attempts or 1,
                    self._policy.initial_backoff_ms or 0,
                    self._policy.max_backoff_ms or 0,
                    int((self._policy.multiplier or 1.0) * 1000),
                    0,
                ),
                request.on_conflict,
                None,
                request.debounce_limit_ms or 0,
            )
        elif op.op == "retrieve":
            return self._leased(node.task, op)
        elif op.op == "ack":
            call = spec.Ack(task_id, request.token.encode())
        elif op.op == "run_again":
            content = None if request.payload is None else request.payload.encode()
            call = spec.RunAgain(
                task_id, request.token.encode(), spec.When(request.delay_ms or 0), content
            )
        elif op.op == "nack":
            call = spec.Nack(task_id, request.token.encode(), request.delay_ms, request.dead)
        elif op.op == "extend":
            call = spec.Extend(task_id, request.token.encode(), request.lease_ms or self._lease_ms)
        elif op.op == "release":
            call = spec.Release(task_id, request.token.encode())
        elif op.op == "snooze":
            call = spec.Snooze(task_id, request.token.encode(), request.delay_ms)
        elif op.op == "cancel":
            call = spec.Cancel(task_id, request.revoke)
        elif op.op == "reschedule":
            call = spec.Reschedule(task_id, spec.When(request.delay_ms or 0))
        elif op.op == "delete_dead":
            call = spec.DeleteDead(task_id)
        else:
            call = spec.Purge(10)
        return self._step(node.task, call, now_ms)

    def _leased(self, task: Task | None, op: Op) -> tuple[Task | None, str]:
        lease = self._reply(op)
        if task is None or task.state != State.READY:
            return task, "EMPTY"
        held = {"promotion": task.promotion, "run": task.run, "attempt": task.attempt + 1}
        if any(getattr(lease, name) != held[name] for name in self._compared):
            return task, "ANOTHER"
        leased = replace(
            task,
            state=State.LEASED,
            at_ms=lease.expire_ms,
            attempt=task.attempt + 1,
            token=lease.token.encode(),
            settled=(b"", ""),
        )
        return leased, "LEASED"

    def _step(
        self, task: Task | None, call: spec.Operation, now_ms: int
    ) -> tuple[Task | None, str]:
        tasks = {} if task is None else {task.id: task}
        sequence = 0 if task is None else task.revision
        counts = {} if task is None else {task.state.name.lower(): 1}
        shard = Shard(
            tasks=tasks, counts=counts, sequence=sequence, mark_ms=now_ms, nonce=b"n", epoch=1
        )
        shard, response = step(shard, spec.Request((call,), now_ms), now_ms)
        result = response.results[0]
        # Revisions are the shard's, and say nothing here: equal nodes must look equal.
        after = shard.tasks.get(self._case.id)
        if after is not None and task is not None and after.revision == task.revision:
            return task, str(result[0])
        return after, str(result[0])

    # What no reply reports ----------------------------------------------------------------------

    def _hidden(self, node: _Node, limit_ns: int) -> Iterator[_Node]:
        task = node.task
        if task is None:
            return
        if task.state == State.SCHEDULED:
            now_ms = max(node.mark_ms, task.due_ms)
            after, _ = self._step(task, spec.Promote(b"n", 1, 1, 1), now_ms)
            yield replace(node, task=after, mark_ms=now_ms)
        elif task.state == State.LEASED:
            now_ms = max(node.mark_ms, task.at_ms)
            after, _ = self._step(task, spec.Reap(b"n", 1, 1, (0.0,)), now_ms)
            yield replace(node, task=after, mark_ms=now_ms)
        elif task.state == State.READY:
            begun = [until_ms for begin_ns, until_ms in self._ghosts if begin_ns <= limit_ns]
            if node.ghosts < len(begun) and node.mark_ms <= max(begun):
                after = replace(
                    task,
                    state=State.LEASED,
                    at_ms=node.mark_ms + self._ghost_ms,
                    attempt=task.attempt + 1,
                    token=b"ghost",
                    settled=(b"", ""),
                )
                yield replace(node, task=after, ghosts=node.ghosts + 1)
        elif task.state == State.DEAD:
            if self._redriven:
                after, _ = self._step(task, spec.Redrive((task.id,)), node.mark_ms)
                yield replace(node, task=after)
        else:
            forgotten_ms = max(node.mark_ms, task.at_ms + self._retention_ms)
            yield replace(node, task=None, mark_ms=forgotten_ms, incarnation=0)


def _purges(view: RunView, case: Case) -> list[Op]:
    """The purges of its topic that are not certainly before, or behind, all that is known of it."""
    purges = view.grouped.purges.get(case.topic, [])
    if not purges:
        return []
    known = [op for op in case.all_ops() if op.op != "get"]
    first_ns = min((op.begin_ns for op in known), default=0)
    last_ns = max((op.end_ns for op in known if op.outcome != "info"), default=0)
    return [op for op in purges if op.end_ns >= first_ns and op.begin_ns <= last_ns]


def _is_exact(op: Op) -> bool:
    """Whether a reply tells the revision that it made: a repeat may tell a later one."""
    if op.op == "enqueue":
        return bool(op.ok and op.reply.created)
    if op.op == "cancel":
        return bool(op.ok and not op.reply.already)
    return op.op in {"retrieve", "extend", "ack", "run_again", "reschedule"}


def _fits(op: Op, status: str) -> bool:
    """Whether a reply is one that this outcome may have given."""
    if op.op == "enqueue":
        # A repeat of it, by the client library, finds what its first attempt made.
        return status == "CREATED" or (not op.reply.created and status == "EXISTS")
    if op.op == "cancel":
        return status == "CANCELLED" or (op.reply.already and status == "ALREADY")
    return op.op == "purge" or status == ("LEASED" if op.op == "retrieve" else "OK")


__all__ = ["Search", "TooLargeError", "denials"]
