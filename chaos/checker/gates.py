"""Coverage gates: what a run must have met to prove anything. Its scenario declares them.

In ``schedule.json``: ``{"gates": {"failovers": 4, "served share when healthy": 0.95}}``. A gate
that was not met makes the verdict UNKNOWN, never green.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from chaos.checker.availability import served, served_share
from chaos.checker.resolve import Resolution
from chaos.checker.timeline import MS
from chaos.checker.uses import USES
from chaos.checker.view import RunView
from chaos.history.operations import (
    READS,
)
from chaos.history.reader import BadHistoryError, Op

NEAR_NS = 50 * MS
"""How near to its task's promotion a request counts as racing with it."""


class Gate(msgspec.Struct):
    """One gate, as measured."""

    name: str
    measured: float
    required: float

    @property
    def met(self) -> bool:
        """At least as much as was required."""
        return self.measured >= self.required


class _Schedule(msgspec.Struct):
    gates: dict[str, float] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Material:
    """What gates are measured on."""

    view: RunView
    unknowns: Resolution

    @property
    def ops(self) -> list[Op]:
        """All operations."""
        return self.view.history.ops


def _failovers(given: Material) -> float:
    """Those with acknowledged writes on both sides."""
    writes = sorted(op.end_ns for op in given.ops if op.ok and op.op not in READS)
    times = given.view.timeline.failovers_ns
    edges = [0, *times, given.view.history.end_ns + 1]
    return sum(
        any(edges[i] <= end_ns < time_ns for end_ns in writes)
        and any(time_ns <= end_ns < edges[i + 2] for end_ns in writes)
        for i, time_ns in enumerate(times)
    )


def _races(given: Material, kind: str) -> Iterator[bool]:
    """Requests that overlapped their task's promotion: whether they came first."""
    view = given.view
    for case in view.cases:
        ops = case.cancels if kind == "cancel" else case.reschedules
        if not ops:
            continue
        promoted_ns = [
            (view.store_ns(entry.due_ms), view.store_ns(entry.at_ms))
            for _, entry in case.entries
            if entry.op == "promote"
        ] or [(view.store_ns(op.reply.due_ms),) * 2 for op in case.enqueues if op.ok]
        for op in ops:
            if op.outcome == "info":
                continue
            near = any(
                op.begin_ns <= at_ns + NEAR_NS and due_ns - NEAR_NS <= op.end_ns
                for due_ns, at_ns in promoted_ns
            )
            if near:
                yield op.ok


def _won(given: Material, kind: str) -> float:
    return sum(_races(given, kind))


def _lost(given: Material, kind: str) -> float:
    return sum(not won for won in _races(given, kind))


def _expired_acks(given: Material) -> Iterator[bool]:
    """Acks that came after their lease's expiry: whether they were accepted."""
    for case in given.view.cases:
        for op in case.acks:
            delivery = case.tokens.get(op.request.token)
            if delivery is None or op.outcome == "info":
                continue
            extended = any(o.outcome != "fail" for o in case.with_token(op.request.token, "extend"))
            expired_ns = given.view.store_ns(delivery.lease.expire_ms)
            if not extended and op.begin_ns > expired_ns + NEAR_NS:
                yield op.ok


def _stale_tokens(given: Material) -> float:
    """Refused, and superseded by a lease that another worker received."""
    return sum(
        op.outcome == "fail"
        and op.error == "LEASE_LOST"
        and (mine := case.tokens.get(token)) is not None
        and any(other.order > mine.order for other in case.deliveries)
        for case in given.view.cases
        for token, ops in case.settles.items()
        for op in ops
    )


def _metric(given: Material, name: str) -> float:
    """A count of every process, at its last sample."""
    last: dict[str, float] = {}
    for note in given.view.history.notes:
        if note.op == "metric" and note.value.name == name:
            last[note.process] = max(last.get(note.process, 0.0), note.value.value)
    return sum(last.values())


def _under_faults(given: Material) -> float:
    quiet = given.view.timeline.quiet(0)
    return sum(op.ok and quiet.troubled(op.begin_ns, op.end_ns) for op in given.ops)


def _healthy_share(given: Material) -> float:
    """0 where there was nothing to serve; a Retrieve that got nothing shows nothing."""
    quiet = given.view.timeline.quiet(given.view.bounds.recovery_ms * MS)
    asked = [
        op
        for op in given.ops
        if not quiet.troubled(op.begin_ns, op.closed_ns)
        and not (op.op == "retrieve" and op.ok and not op.reply.leases)
        and served(op) is not None
    ]
    return round(served_share(asked), 4) if asked else 0.0


GATES: dict[str, Callable[[Material], float]] = {
    "operations": lambda given: sum(served(op) is not None for op in given.ops),
    "failovers": _failovers,
    "faults verified": lambda given: sum(w.verified for w in given.view.timeline.windows),
    "kinds of faults": lambda given: len(
        {w.kind for w in given.view.timeline.windows if w.verified}
    ),
    "operations during faults": _under_faults,
    "served share when healthy": _healthy_share,
    "cancels that beat the promotion": lambda given: _won(given, "cancel"),
    "cancels that the promotion beat": lambda given: _lost(given, "cancel"),
    "reschedules that beat the promotion": lambda given: _won(given, "reschedule"),
    "reschedules that the promotion beat": lambda given: _lost(given, "reschedule"),
    "late acks accepted": lambda given: sum(_expired_acks(given)),
    "late acks refused": lambda given: sum(not accepted for accepted in _expired_acks(given)),
    "stale tokens refused": _stale_tokens,
    "deposed batches refused": lambda given: _metric(given, "deposed_batches_refused"),
    **{
        name: (lambda given, of=of: of(given.view))  # type: ignore[misc]
        for name, of in USES.items()
    },
    "unknowns later proved applied": lambda given: given.unknowns.applied,
    "unknowns later proved absent": lambda given: given.unknowns.absent,
}
"""Every gate that a scenario may declare, and how it is measured."""


def required_gates(schedule: Path) -> dict[str, float]:
    """What a run's scenario declared; nothing if there is no schedule.

    Raises:
        BadHistoryError: the file cannot be read, or names a gate that there is not.
    """
    if not schedule.exists():
        return {}
    try:
        gates = msgspec.json.decode(schedule.read_bytes(), type=_Schedule).gates
    except (OSError, msgspec.DecodeError) as error:
        raise BadHistoryError(f"{schedule.name}: {error}") from None
    for name in gates:
        if name not in GATES:
            known = ", ".join(GATES)
            raise BadHistoryError(f"{schedule.name}: no gate {name!r}; there are {known}")
    return gates


def measure(view: RunView, unknowns: Resolution, required: dict[str, float]) -> list[Gate]:
    """The gates that were declared, in the order of the table."""
    given = Material(view, unknowns)
    return [
        Gate(name, float(of(given)), required[name])
        for name, of in GATES.items()
        if name in required
    ]


__all__ = ["GATES", "Gate", "measure", "required_gates"]
