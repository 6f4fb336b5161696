"""The journal of a task, link by link: each transition starts where the one before it ended.

Which promise a broken link breaks depends on what it does to a task in which state.
"""

from __future__ import annotations

from collections.abc import Iterator

from chaos.checker.cases import Case
from chaos.checker.verdict import Anomaly
from chaos.checker.view import RunView
from chaos.history.journal import Entry

LEGAL: dict[str, frozenset[str]] = {
    "promote": frozenset({"scheduled"}),
    "lease": frozenset({"ready"}),
    "extend": frozenset({"leased"}),
    "ack": frozenset({"scheduled", "ready", "leased"}),
    "nack": frozenset({"leased"}),
    "release": frozenset({"leased"}),
    "snooze": frozenset({"leased"}),
    "expire": frozenset({"leased"}),
    "cancel": frozenset({"scheduled", "ready", "leased"}),
    "reschedule": frozenset({"scheduled", "ready"}),
    "replace": frozenset({"scheduled", "ready"}),
    "redrive": frozenset({"dead"}),
    "purge": frozenset({"scheduled", "ready", "leased", "dead"}),
    "set_aside": frozenset({"scheduled", "ready", "leased", "dead"}),
}
"""The states that each transition may start from."""

ENDS = frozenset({"ack", "nack", "release", "snooze"})
"""What ends a lease, once."""

PAST = {
    "ack": "acked",
    "run_again": "acked and run again",
    "nack": "nacked",
    "release": "released",
    "snooze": "snoozed",
    "lease": "leased",
    "extend": "extended",
    "expire": "expired",
    "cancel": "cancelled",
}


def broken_links(view: RunView, promise: str) -> list[Anomaly]:
    """Links that break this promise."""
    if view.chain_breaks is None:
        view.chain_breaks = {}
        for case in view.cases:
            for broken, summary, witnesses in _links(case):
                anomaly = view.of_entries(broken, summary, *witnesses)
                view.chain_breaks.setdefault(broken, []).append(anomaly)
    return view.chain_breaks.get(promise, [])


Witnesses = tuple[tuple[int, Entry], ...]


def _links(case: Case) -> Iterator[tuple[str, str, Witnesses]]:
    before: tuple[int, Entry] | None = None
    for witness in case.entries:
        entry = witness[1]
        # A promotion from a wrong state is G3's own business.
        if before is not None and entry.op not in {"enqueue", "promote"}:
            last = before[1]
            done = f"was {PAST.get(entry.op, entry.op)} at {entry.at_ms} ms"
            if entry.incarnation != last.incarnation:
                summary = f"{done} as incarnation {entry.incarnation}, which had given way to "
                yield "G8", f"{summary}{last.incarnation}", (before, witness)
            elif last.after not in LEGAL.get(entry.op, frozenset({last.after})):
                summary = f"{done}, though it was {last.after} since {last.at_ms} ms"
                yield _promise(last, entry), summary, (before, witness)
        before = witness


def _promise(last: Entry, entry: Entry) -> str:
    if entry.op in ENDS and entry.op == last.op:
        return "G13"
    if last.after == "succeeded":
        return "G9"
    if last.after == "cancelled":
        return "G4"
    return "G7" if entry.op == "lease" else "G8"
