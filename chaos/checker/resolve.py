"""What became of the operations whose outcome was not known, as far as something proved it later.

The surviving journal is the best witness: an operation that it holds took effect, one that it does
not hold did not (or in a lineage that is gone). Without it, only a later observation proves
something, and nothing proves that an operation will never take effect.

Only what is certain is written into ``Op.fate``. Where one entry may be any of several operations,
they all stay open.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chaos.checker.cases import Case
from chaos.checker.view import MS, RunView
from chaos.history.journal import Entry
from chaos.history.operations import (
    READS,
)
from chaos.history.reader import Fate, Op

SLACK_NS = 2_000 * MS
"""How far off the store's clock may be here, and how late a request may still arrive."""


@dataclass(slots=True)
class Resolution:
    """How many unknowns there were, and what they came to."""

    unknown: int = 0
    applied: int = 0
    absent: int = 0

    @property
    def open(self) -> int:
        """Operations whose outcome stays unknown."""
        return self.unknown - self.applied - self.absent


def resolve(view: RunView) -> Resolution:
    """Fills in the fates, and counts."""
    for case in view.cases:
        if view.journaled(case.topic):
            _by_journal(case)
        else:
            _by_sight(case)
    if view.journal is not None:
        _retrieves(view)
    found = Resolution()
    for op in view.history.ops:
        if op.outcome == "info" and op.op not in READS:
            found.unknown += 1
            found.applied += op.fate == "applied"
            found.absent += op.fate == "absent"
    return found


def _unknown(ops: Iterable[Op]) -> list[Op]:
    return [op for op in ops if op.outcome == "info"]


def _by_journal(case: Case) -> None:
    by_op: dict[str, list[Entry]] = {}
    next_runs = case.next_runs() if case.run_agains else set()
    for _, entry in case.entries:
        if not (entry.op == "enqueue" and entry.incarnation in next_runs):
            by_op.setdefault(entry.op, []).append(entry)
    _match(case.enqueues, by_op.get("enqueue", []))
    _match(case.cancels, by_op.get("cancel", []))
    _match(case.reschedules, by_op.get("reschedule", []))
    for token, ops in case.settles.items():
        open_ops = _unknown(ops)
        if open_ops:
            _settles(case, token, ops, open_ops)


def _match(ops: Sequence[Op], entries: list[Entry]) -> None:
    """Entries that no acknowledged operation made were made by unknown ones."""
    open_ops = _unknown(ops)
    if not open_ops:
        return
    claimed = {op.reply.revision for op in ops if op.ok}
    incarnations = {op.reply.incarnation for op in ops if op.ok and op.op == "enqueue"}
    left = [
        entry
        for entry in entries
        if entry.revision not in claimed
        and not (entry.op == "enqueue" and entry.incarnation in incarnations)
    ]
    # What was answered "it is there already" may be the work of an unknown one.
    repeats = any(
        op.ok
        and (
            op.reply.created is False if op.op == "enqueue" else getattr(op.reply, "already", False)
        )
        for op in ops
    )
    if len(left) >= len(open_ops):
        _fates(open_ops, "applied")
    elif not left and not repeats:
        _fates(open_ops, "absent")


def _fates(ops: list[Op], fate: Fate) -> None:
    for op in ops:
        op.fate = fate


def _settles(case: Case, token: str, ops: list[Op], open_ops: list[Op]) -> None:
    """What ended a lease stands between its entry and that of the next one."""
    delivery = case.tokens.get(token)
    if delivery is None:
        return
    at = next(
        (
            index
            for index, (_, entry) in enumerate(case.entries)
            if entry.op == "lease" and entry.revision == delivery.lease.revision
        ),
        None,
    )
    if at is None:
        return
    behind: list[Entry] = []
    for _, entry in case.entries[at + 1 :]:
        if entry.op == "lease" or entry.incarnation != delivery.lease.incarnation:
            break
        behind.append(entry)
    _run_agains(case, ops, open_ops, at)
    for kind in ("ack", "nack", "release", "snooze", "extend"):
        mine = [op for op in open_ops if op.op == kind]
        reported = {op.reply.revision for op in ops if op.ok and op.op == kind}
        entries = [entry for entry in behind if entry.op == kind]
        left = [entry for entry in entries if entry.revision not in reported]
        if not entries:
            _fates(mine, "absent")
        elif len(left) >= len(mine):
            _fates(mine, "applied")


def _run_agains(case: Case, ops: list[Op], open_ops: list[Op], at: int) -> None:
    """An ack behind the lease, and a new incarnation by the same call."""
    mine = [op for op in open_ops if op.op == "run_again"]
    if not mine:
        return
    for (_, before), (_, after) in pairwise(case.entries[at + 1 :]):
        if before.op == "lease":
            break
        if before.op == "ack":
            made = after.op == "enqueue" and before.lineage == after.lineage
            reported = any(op.ok and op.op == "run_again" for op in ops)
            if made and not reported and len(mine) == 1:
                _fates(mine, "applied")
            elif not made:
                _fates(mine, "absent")
            return
    if not any(entry.op == "ack" for _, entry in case.entries[at + 1 :]):
        _fates(mine, "absent")


def _by_sight(case: Case) -> None:
    """Without a journal: what was delivered was enqueued, what is cancelled was cancelled."""
    payloads: dict[str, list[Op]] = {}
    for op in case.enqueues:
        if op.may_have_happened:
            payloads.setdefault(op.request.payload, []).append(op)
    for delivery in case.deliveries:
        makers = payloads.get(delivery.lease.payload, [])
        if len(makers) == 1 and makers[0].outcome == "info":
            makers[0].fate = "applied"
    cancels = [op for op in case.cancels if op.may_have_happened]
    seen = any(op.ok and op.reply.already for op in cancels) or any(
        op.ok and op.reply.state == "cancelled" for op in case.gets
    )
    open_cancels = _unknown(cancels)
    known = [op for op in cancels if op.ok and not op.reply.already]
    if seen and len(open_cancels) == 1 and not known:
        open_cancels[0].fate = "applied"


def _retrieves(view: RunView) -> None:
    """A lease that the journal holds and no reply names was made by an unknown Retrieve."""
    open_ops = [
        op
        for op in view.grouped.retrieves
        if op.outcome == "info" and any(view.journaled(topic) for topic in op.request.topics)
    ]
    if not open_ops or not view.clock.known:
        return
    reported = {
        op.request.request_id
        for op in view.grouped.retrieves
        if op.ok and op.reply.leases and op.request.request_id
    }
    groups: dict[str, list[Entry]] = {}
    for case in view.cases:
        known = {delivery.lease.revision for delivery in case.deliveries}
        for _, entry in case.entries:
            if entry.op == "lease" and entry.revision not in known:
                groups.setdefault(entry.lineage, []).append(entry)
    calls = sorted(
        (view.clock.ns_of(entries[0].at_ms), entries[0].topic, tag)
        for tag, entries in groups.items()
    )
    starts = [call[0] for call in calls]
    claims: dict[str, list[Op]] = {tag: [] for tag in groups}
    for op in open_ops:
        # A call that never returned may have been carried out at any time after it began.
        end_ns = op.closed_ns + SLACK_NS if op.end >= 0 else view.history.end_ns + SLACK_NS
        first = bisect_left(starts, op.begin_ns - SLACK_NS)
        candidates = 0
        for start_ns, topic, tag in calls[first:]:
            if start_ns > end_ns:
                break
            if topic in op.request.topics:
                claims[tag].append(op)
                candidates += 1
        # What a repeat reported may be this call's doing.
        if not candidates and op.request.request_id not in reported:
            op.fate = "absent"
    for ops in claims.values():
        if len(ops) == 1:
            ops[0].fate = "applied"


__all__ = ["Resolution", "resolve"]
