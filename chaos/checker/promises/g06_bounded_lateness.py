"""G6 bounded lateness: a due task is ready soon, by the journal: that is where it becomes ready.

Time under a fault, and the grace behind it, is set apart and not thrown away: there it is the
longest stretch without a fault that counts, against the bound for recovery. Without a journal a
delivery is the latest moment at which the task can have become ready: good enough to keep the
bound, not to break it.

What a task is due by is bounded too where it is debounced: by the journal, no later than its limit
after the first enqueue of those that took each other's place without having run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from chaos.checker.cases import Case
from chaos.checker.verdict import Found
from chaos.checker.view import MS, RunView
from chaos.history.journal import Entry

WORST = 10
"""How many of the late tasks are listed."""


class Sample(NamedTuple):
    """One promotion."""

    late_ms: float
    due_ms: int
    case: Case
    witness: tuple[int, Entry] | None


def check(view: RunView) -> Found:
    """Both distributions, each against its own bound."""
    found = Found()
    bounds = view.bounds
    healthy: list[Sample] = []
    under_faults: list[Sample] = []
    quiet = view.timeline.quiet(bounds.recovery_ms * MS, view.paused())
    for sample in _by_journal(view) if view.journal is not None else _by_delivery(view):
        found.looked_at += 1
        due_ns = view.store_ns(sample.due_ms)
        at_ns = due_ns + int(sample.late_ms * MS)
        if quiet.troubled(due_ns, at_ns):
            late_ms = quiet.longest_ns(due_ns, at_ns) / MS
            under_faults.append(sample._replace(late_ms=late_ms))
        else:
            healthy.append(sample)
    name = f"p{bounds.lateness_quantile * 100:g}"
    for label, samples, bound_ms in (
        ("healthy", healthy, bounds.lateness_ms),
        ("under faults, after healing", under_faults, bounds.recovery_ms),
    ):
        late = sorted(sample.late_ms for sample in samples)
        found.figures[f"lateness {label} (ms)"] = {
            "tasks": len(late),
            "p50": quantile(late, 0.5),
            "p99": quantile(late, 0.99),
            "p99.9": quantile(late, 0.999),
            "max": quantile(late, 1.0),
            "bound": bound_ms,
            "bound is for": name,
        }
        if quantile(late, bounds.lateness_quantile) > bound_ms:
            _too_late(view, found, samples, bound_ms, label)
    for case in view.cases:
        if any(op.request.on_conflict == "debounce" for op in case.enqueues):
            _pushed_back(view, found, case)
            _acknowledged_beyond(view, found, case)
    return found


def _acknowledged_beyond(view: RunView, found: Found, case: Case) -> None:
    """Debounces whose own replies name a due time beyond their limit."""
    for op in case.enqueues:
        limit_ms = op.request.debounce_limit_ms
        if op.request.on_conflict != "debounce" or limit_ms is None:
            continue
        if op.ok and op.reply.created and op.reply.due_ms > op.reply.store_ms + limit_ms:
            summary = (
                f"was debounced at {view.at(op)}, {op.reply.store_ms} ms by the store's clock, and "
                f"is due at {op.reply.due_ms} ms, beyond its limit of {limit_ms} ms"
            )
            found.anomalies.append(view.anomaly("G6", summary, case, op))
            return


def _pushed_back(view: RunView, found: Found, case: Case) -> None:
    """Debounced tasks that are due later than their limit allows.

    A debounce whose reply was lost, or a task that was leased or snoozed, begins the count again
    here: too late a beginning never blames a healthy system.
    """
    asked = {op.reply.incarnation: op.request for op in case.enqueues if op.ok and op.reply.created}
    since_ms, before, ran = 0, None, True
    for witness in case.entries:
        entry = witness[1]
        if entry.op in {"lease", "redrive"}:
            ran = True
        elif entry.op == "enqueue":
            request = asked.get(entry.incarnation)
            debounced = request is not None and request.on_conflict == "debounce"
            if ran or not debounced or before is None or before.op != "replace":
                since_ms = entry.at_ms
            ran = False
            limit_ms = request.debounce_limit_ms or 0 if request is not None else 0
            if debounced and entry.due_ms > max(entry.at_ms, since_ms + limit_ms):
                summary = (
                    f"is due at {entry.due_ms} ms by a debounce, {entry.due_ms - since_ms} ms "
                    f"after the first enqueue at {since_ms} ms; its limit is {limit_ms} ms"
                )
                found.anomalies.append(view.of_entries("G6", summary, witness))
                return
        before = entry


def _too_late(
    view: RunView, found: Found, samples: list[Sample], bound_ms: int, label: str
) -> None:
    beyond = sorted(
        (sample for sample in samples if sample.late_ms > bound_ms), key=lambda s: -s.late_ms
    )
    if view.journal is None:
        found.unknown.append(
            f"{len(beyond)} deliveries were later than {bound_ms} ms ({label}); whether the tasks "
            f"or the workers were, only the journal tells"
        )
        return
    for sample in beyond[:WORST]:
        summary = (
            f"was due at {sample.due_ms} ms and ready {sample.late_ms:.0f} ms later ({label}; the "
            f"bound is {bound_ms} ms, {len(beyond)} of {len(samples)} were beyond it)"
        )
        assert sample.witness is not None
        found.anomalies.append(view.of_entries("G6", summary, sample.witness))


def _by_journal(view: RunView) -> Iterator[Sample]:
    """Every promotion, and what was due and never was promoted."""
    assert view.journal is not None
    last_ms = max((entry.at_ms for entry in view.journal.entries), default=0)
    for case in view.cases:
        for witness in case.entries:
            entry = witness[1]
            if entry.op == "promote":
                yield Sample(max(0, entry.at_ms - entry.due_ms), entry.due_ms, case, witness)
        if case.entries and case.entries[-1][1].after == "scheduled":
            entry = case.entries[-1][1]
            # The journal is read when the history is over. It may have no entry since the task was
            # due: where nothing is promoted, nothing happens.
            since_due_ms = (view.history.end_ns - view.store_ns(entry.due_ms)) / MS
            late_ms = max(last_ms - entry.due_ms, since_due_ms)
            if late_ms > view.bounds.lateness_ms:
                yield Sample(late_ms, entry.due_ms, case, case.entries[-1])


def _by_delivery(view: RunView) -> Iterator[Sample]:
    for case in view.cases:
        for delivery in case.deliveries:
            lease = delivery.lease
            if lease.attempt == lease.promotion == 1:
                late_ms = max(0, delivery.at_ms - lease.due_ms)
                yield Sample(late_ms, lease.due_ms, case, None)


def quantile(ordered: list[float], share: float) -> float:
    """The value that this share of them does not exceed; 0 if there is none."""
    if not ordered:
        return 0.0
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 1)
