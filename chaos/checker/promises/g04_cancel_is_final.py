"""G4 cancel is final: what was cancelled is never delivered again; a refusal is true when said."""

from __future__ import annotations

from typing import Any

from chaos.checker.cases import Case
from chaos.checker.chain import broken_links
from chaos.checker.operators import alive_after_its_end
from chaos.checker.order import broken_order
from chaos.checker.search import Search, TooLargeError, denials
from chaos.checker.verdict import Found
from chaos.checker.view import MS, RunView
from chaos.history.reader import Op


def check(view: RunView) -> Found:
    """Each acknowledged cancel against what came after it, each refusal against all the rest."""
    found = Found(
        anomalies=[
            *broken_order(view, "G4"),
            *broken_links(view, "G4"),
            *alive_after_its_end(view),
        ]
    )
    searched = 0
    for case in view.cases:
        for cancel in case.cancels:
            if cancel.ok:
                found.looked_at += 1
                _final(view, found, case, cancel)
        said = denials(case)
        found.looked_at += len(said)
        refused = [op for op in said if not _obvious(case, op)]
        if refused:
            searched += 1
            _true_when_said(view, found, case, refused)
    found.figures = {"tasks with refusals that needed a search": searched}
    return found


def _final(view: RunView, found: Found, case: Case, cancel: Op) -> None:
    """One acknowledged cancel: one anomaly at most, the first thing that shows it was not final."""
    for shows in (_delivered, _seen, _acked, _held):
        broken = shows(view, case, cancel)
        if broken is not None:
            summary, *ops = broken
            found.anomalies.append(view.anomaly("G4", summary, case, *ops))
            return


def _delivered(view: RunView, case: Case, cancel: Op) -> tuple[Any, ...] | None:
    cancelled = f"was cancelled at {view.at(cancel)}"
    for delivery in case.deliveries:
        if delivery.lease.incarnation != cancel.reply.incarnation:
            continue
        for sighting in delivery.sightings:
            if sighting.begin_ns > cancel.end_ns:
                return f"{cancelled}, delivered at {view.at(sighting)}", cancel, sighting
        revision = delivery.lease.revision
        if revision > cancel.reply.revision and not cancel.reply.already:
            summary = (
                f"{cancelled} as revision {cancel.reply.revision}, delivered as revision "
                f"{revision} at {view.at(delivery.op)}"
            )
            return summary, cancel, delivery.op
    return None


def _seen(view: RunView, case: Case, cancel: Op) -> tuple[Any, ...] | None:
    keep_ns = (view.settings(case.topic).retention_ms - view.bounds.clock_error_ms) * MS
    for look in case.gets:
        denied = look.outcome == "fail" and look.error == "TASK_NOT_FOUND"
        if denied and look.begin_ns > cancel.end_ns and look.end_ns - cancel.end_ns < keep_ns:
            summary = (
                f"was cancelled at {view.at(cancel)}, and not found at {view.at(look)}, while its "
                f"tombstone was to be kept"
            )
            return summary, cancel, look
        if not look.ok or look.reply.incarnation != cancel.reply.incarnation:
            continue
        if look.begin_ns > cancel.end_ns and look.reply.state != "cancelled":
            summary = (
                f"was cancelled at {view.at(cancel)}, seen {look.reply.state} at {view.at(look)}"
            )
            return summary, cancel, look
    return None


def _acked(view: RunView, case: Case, cancel: Op) -> tuple[Any, ...] | None:
    """A cancel that may not revoke says TASK_LEASED while a worker has the task."""
    revoked = any(op.request.revoke for op in case.cancels if op.may_have_happened)
    cancelled = f"was cancelled at {view.at(cancel)}"
    for ack in (*case.acks, *case.run_agains):
        lease = case.tokens.get(ack.request.token)
        if not ack.ok or lease is None or lease.lease.incarnation != cancel.reply.incarnation:
            continue
        if ack.end_ns < cancel.begin_ns:
            return f"was acked at {view.at(ack)}, and yet {cancelled}", ack, cancel
        if ack.begin_ns > cancel.end_ns and not revoked and lease.end_ns < cancel.begin_ns:
            summary = (
                f"was delivered at {view.at(lease.op)}, {cancelled} without revoking the lease, "
                f"and acked at {view.at(ack)}"
            )
            return summary, lease.op, cancel, ack
    return None


def _held(view: RunView, case: Case, cancel: Op) -> tuple[Any, ...] | None:
    topic = view.final.topics.get(case.topic) if view.final else None
    for state, ids in topic.held.items() if topic else ():
        if ids.get(case.id) == cancel.reply.incarnation:
            return f"was cancelled at {view.at(cancel)}, and is held as {state} at the end", cancel
    return None


def _obvious(case: Case, cancel: Op) -> bool:
    """Whether a refusal is true by what surrounds it, so that no search is needed."""
    if cancel.error == "TASK_NOT_FOUND":
        return not any(op.outcome != "fail" and op.begin_ns < cancel.end_ns for op in case.enqueues)
    if case.run_agains or len({op.reply.incarnation for op in case.enqueues if op.ok}) != 1:
        return False
    if any(op.outcome == "info" for op in case.enqueues):
        return False
    if cancel.error == "TASK_FINISHED":
        return any(op.ok and op.end_ns < cancel.begin_ns for op in case.acks)
    # Leased: by a lease whose holder proved afterwards, under its token, that it still had it.
    return any(
        op.ok and op.begin_ns > cancel.end_ns and delivery.end_ns < cancel.begin_ns
        for op in (*case.extends, *case.nacks, *case.releases, *case.snoozes)
        if (delivery := case.tokens.get(op.request.token)) is not None
    )


def _true_when_said(view: RunView, found: Found, case: Case, refused: list[Op]) -> None:
    try:
        if Search(view, case, refused).explains():
            return
        if not Search(view, case, []).explains():
            # It is not the refusal that cannot be explained: chaos/checker/explained.py.
            return
        for cancel in refused:
            others = [other for other in refused if other is not cancel]
            if Search(view, case, others).explains():
                break
        else:
            cancel = refused[0]
    except TooLargeError:
        found.unknown.append(
            f"task {case.name}: whether a refusal was true took more than "
            f"{view.bounds.search_nodes} tries"
        )
        return
    said = {
        "TASK_NOT_FOUND": "not to be found",
        "TASK_LEASED": "to be leased",
        "TASK_FINISHED": "to have finished",
    }[cancel.error]
    witnesses = [op for op in case.all_ops() if op.ok and op.begin_ns < cancel.end_ns][-3:]
    summary = (
        f"was said {said} at {view.at(cancel)}, which was not true at any moment of that request"
    )
    found.anomalies.append(view.anomaly("G4", summary, case, *witnesses, cancel))
