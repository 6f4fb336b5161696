"""G6 bounded lateness: a due task is ready soon, by the journal: that is where it becomes ready.

What excuses lateness is that writes to the shard were not possible (chaos/checker/trouble.py),
that a scheduler had to be replaced, or that the topic was paused; no fault by itself does. A task
that was cancelled or replaced while it was overdue counts like one that was promoted then. Every
task has to keep its bound: one that is five minutes late is one that was forgotten.

Without a journal a delivery is the latest moment at which the task can have become ready: good
enough to keep the bound, not to break it.

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
WAITED = frozenset({"promote", "cancel", "replace", "reschedule", "purge"})
"""What ends the wait of a scheduled task."""


class Sample(NamedTuple):
    """One wait that is over.

    Attributes:
        excused_ms: how much of the lateness is excused.
    """

    late_ms: float
    excused_ms: float
    due_ms: int
    case: Case
    witness: tuple[int, Entry] | None


def check(view: RunView) -> Found:
    """Every wait against the bound, less what is excused."""
    found = Found()
    bound_ms = view.bounds.lateness_ms
    samples = list(_by_journal(view) if view.journal is not None else _by_delivery(view))
    found.looked_at = len(samples)
    healthy = sorted(sample.late_ms for sample in samples if not sample.excused_ms)
    excused = sorted(sample.late_ms for sample in samples if sample.excused_ms)
    for label, late in (("healthy", healthy), ("excused", excused)):
        found.figures[f"lateness {label} (ms)"] = {
            "tasks": len(late),
            "p50": quantile(late, 0.5),
            "p99": quantile(late, 0.99),
            "max": quantile(late, 1.0),
        }
    found.figures["bound (ms)"] = bound_ms
    shards = {(case.topic, entry.shard) for case in view.cases for _, entry in case.entries[:1]}
    end_ns = view.history.end_ns
    found.figures["largest share of the run in which a shard was excused"] = round(
        max((view.trouble.share(topic, shard, end_ns) for topic, shard in shards), default=0.0), 3
    )
    beyond = [sample for sample in samples if sample.late_ms > max(bound_ms, sample.excused_ms)]
    if beyond:
        _too_late(view, found, beyond, bound_ms)
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


def _too_late(view: RunView, found: Found, late: list[Sample], bound_ms: int) -> None:
    late.sort(key=lambda sample: sample.excused_ms - sample.late_ms)
    if view.journal is None:
        found.unknown.append(
            f"{len(late)} deliveries were later than {bound_ms} ms; whether the tasks or the "
            f"workers were, only the journal tells"
        )
        return
    for sample in late[:WORST]:
        assert sample.witness is not None
        entry = sample.witness[1]
        became = "ready" if entry.op == "promote" else f"not ready when it was {entry.op}d"
        if entry.after == "scheduled":
            became = "not ready"
        excuse = f", of which {sample.excused_ms:.0f} ms are excused" if sample.excused_ms else ""
        summary = (
            f"was due at {sample.due_ms} ms and {became} {sample.late_ms:.0f} ms later{excuse}; "
            f"the bound is {bound_ms} ms, {len(late)} were beyond it"
        )
        found.anomalies.append(view.of_entries("G6", summary, sample.witness))


def _by_journal(view: RunView) -> Iterator[Sample]:
    """Every end of a wait, and what was due and never was promoted."""
    assert view.journal is not None
    last_ms = max((entry.at_ms for entry in view.journal.entries), default=0)
    for case in view.cases:
        due_ms = 0
        for witness in case.entries:
            entry = witness[1]
            if entry.op in WAITED and entry.before == "scheduled":
                # A reschedule has the new due time; the wait that it ends was for the one before.
                waited_ms = due_ms if entry.op == "reschedule" else entry.due_ms
                if entry.op == "promote" or entry.at_ms > waited_ms:
                    yield _sample(view, case, witness, waited_ms, entry.at_ms)
            due_ms = entry.due_ms
        if case.entries and case.entries[-1][1].after == "scheduled":
            witness = case.entries[-1]
            # The journal is read when the history is over. It may have no entry since the task was
            # due: where nothing is promoted, nothing happens.
            end_ms = due_ms + (view.history.end_ns - view.store_ns(due_ms)) / MS
            sample = _sample(view, case, witness, due_ms, max(last_ms, int(end_ms)))
            if sample.late_ms > view.bounds.lateness_ms:
                yield sample


def _sample(
    view: RunView, case: Case, witness: tuple[int, Entry], due_ms: int, over_ms: int
) -> Sample:
    late_ms = max(0, over_ms - due_ms)
    due_ns = view.store_ns(due_ms)
    excused_ns = 0
    if late_ms > view.bounds.lateness_ms:
        ready_ns = due_ns + late_ms * MS
        shard = witness[1].shard
        excused_ns = max(0, view.trouble.excused_ns(case.topic, shard, due_ns, ready_ns) - due_ns)
    return Sample(late_ms, excused_ns / MS, due_ms, case, witness)


def _by_delivery(view: RunView) -> Iterator[Sample]:
    for case in view.cases:
        for delivery in case.deliveries:
            lease = delivery.lease
            if lease.attempt == lease.promotion == 1:
                late_ms = max(0, delivery.at_ms - lease.due_ms)
                yield Sample(late_ms, 0.0, lease.due_ms, case, None)


def quantile(ordered: list[float], share: float) -> float:
    """The value that this share of them does not exceed; 0 if there is none."""
    if not ordered:
        return 0.0
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 1)
