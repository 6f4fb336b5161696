"""G3 promote once: each (id, incarnation, promotion) happens once in the surviving journal.

The replies are the second witness: one promotion leads to one lease, unless that is handed back.
"""

from __future__ import annotations

from chaos.checker.cases import Case, Delivery
from chaos.checker.verdict import Found
from chaos.checker.view import RunView
from chaos.history.journal import Entry


def check(view: RunView) -> Found:
    """Promotions are numbered 1, 2, 3, ... within an incarnation, each out of SCHEDULED."""
    found = Found()
    if not view.journal_complete and not view.journal_alone:
        found.unknown.append("the journal does not begin with the first task: it was trimmed")
    for case in view.cases:
        _delivered(view, found, case)
        if case.entries:
            _promotions(view, found, case)
        elif view.journaled(case.topic):
            _unheard(view, found, case, set())
    return found


def _delivered(view: RunView, found: Found, case: Case) -> None:
    """Two leases of one promotion, the first of which no release can have handed back.

    Only a release leads from a lease to another one without a promotion between them. This rule
    also sees a promotion in a lineage that the surviving journal does not hold.
    """
    last: dict[tuple[int, int], Delivery] = {}
    for delivery in case.deliveries:
        lease = delivery.lease
        before = last.get((lease.incarnation, lease.promotion))
        last[lease.incarnation, lease.promotion] = delivery
        if before is None or any(
            op.may_have_happened for op in case.with_token(before.lease.token, "release")
        ):
            continue
        summary = (
            f"was delivered twice from promotion {lease.promotion} of incarnation "
            f"{lease.incarnation}: at {view.at(before.op)} and {view.at(delivery.op)}"
        )
        found.anomalies.append(view.anomaly("G3", summary, case, before.op, delivery.op))
        return


def _promotions(view: RunView, found: Found, case: Case) -> None:
    seen: dict[tuple[int, int], tuple[int, Entry]] = {}
    reached: dict[int, int] = {}
    before: Entry | None = None
    # Of what began before the journal does, the first numbers are not in it.
    begun = {entry.incarnation for _, entry in case.entries if entry.op == "enqueue"}
    for witness in case.entries:
        entry = witness[1]
        if entry.op == "promote":
            found.looked_at += 1
            key = (entry.incarnation, entry.promotion)
            last = reached.get(entry.incarnation, 0)
            follows = before is not None and before.incarnation == entry.incarnation
            if key in seen:
                summary = (
                    f"was promoted twice as number {entry.promotion} of incarnation "
                    f"{entry.incarnation}: at {seen[key][1].at_ms} and {entry.at_ms} ms"
                )
                found.anomalies.append(view.of_entries("G3", summary, seen[key], witness))
            elif entry.promotion != last + 1 and (last or entry.incarnation in begun):
                summary = f"was promoted as number {entry.promotion} after number {last}"
                found.anomalies.append(view.of_entries("G3", summary, witness))
            elif follows and before is not None and before.after != "scheduled":
                summary = (
                    f"was promoted as number {entry.promotion} at {entry.at_ms} ms while it was "
                    f"{before.after} since {before.at_ms} ms"
                )
                found.anomalies.append(view.of_entries("G3", summary, witness))
            seen.setdefault(key, witness)
            reached[entry.incarnation] = max(last, entry.promotion)
        before = entry
    if view.journal_complete:
        _unheard(view, found, case, set(seen))


def _unheard(view: RunView, found: Found, case: Case, promoted: set[tuple[int, int]]) -> None:
    """Deliveries in the surviving lineage of promotions that it does not hold."""
    for delivery in case.deliveries:
        lease = delivery.lease
        if (lease.incarnation, lease.promotion) in promoted or lease.lineage not in view.lineages:
            continue
        summary = (
            f"was delivered at {view.at(delivery.op)} from promotion {lease.promotion} of "
            f"incarnation {lease.incarnation}, which never happened"
        )
        found.anomalies.append(view.anomaly("G3", summary, case, delivery.op))
