"""G2 no loss: an acknowledged enqueue ends, or is still held; never nothing.

That it ended has to be somebody's doing: an ack, with or without a next run, a cancel, a purge or a
replacement that happened, or that may have happened. What the store says of it is no excuse.
"""

from __future__ import annotations

from chaos.checker.cases import Case
from chaos.checker.order import broken_order
from chaos.checker.verdict import Found
from chaos.checker.view import RunView
from chaos.history.reader import Op


def check(view: RunView) -> Found:
    """Each acknowledged incarnation, by what was left after the drain."""
    found = Found(anomalies=list(broken_order(view, "G2")))
    final = view.final
    assert final is not None
    if not final.drained:
        found.unknown.append("the drain did not come to its end")
    for case in view.cases:
        acknowledged: dict[int, Op] = {}
        for op in case.makers:
            if op.ok:
                acknowledged.setdefault(op.reply.incarnation, op)
        if not acknowledged:
            continue
        found.looked_at += 1
        _vanished(view, found, case, acknowledged)
        topic = final.topics.get(case.topic)
        if topic is None:
            found.unknown.append(f"what topic {case.topic} holds at the end is not known")
            break
        held = {ids[case.id] for ids in topic.held.values() if case.id in ids}
        survived = {entry.incarnation for _, entry in case.entries if entry.op == "enqueue"}
        for incarnation, op in acknowledged.items():
            if incarnation in held or _ended(view, case, incarnation, op, certain=True):
                continue
            forgotten = (
                view.journaled(case.topic) and view.journal_complete and incarnation not in survived
            )
            if forgotten or not _ended(view, case, incarnation, op, certain=False):
                where = ", nor in the surviving journal" if forgotten else ""
                summary = (
                    f"was enqueued at {view.at(op)}, never ended, and is not held after the "
                    f"drain{where}"
                )
                found.anomalies.append(view.anomaly("G2", summary, case, op))
    return found


def _ended(view: RunView, case: Case, incarnation: int, enqueue: Op, *, certain: bool) -> bool:
    """Whether a request ended this incarnation; ``certain``: and its reply said so."""

    def counts(op: Op) -> bool:
        return op.ok if certain else op.may_have_happened

    for op in (*case.acks, *case.run_agains):
        delivery = case.tokens.get(op.request.token)
        if counts(op) and (delivery is None or delivery.lease.incarnation == incarnation):
            return True
    for op in case.cancels:
        if counts(op) and (not op.ok or op.reply.incarnation == incarnation):
            return True
    if any(counts(op) for op in case.deletes):
        return True
    for op in case.enqueues:
        if op.request.replaces and counts(op) and (not op.ok or op.reply.incarnation > incarnation):
            return True
    return any(
        counts(op) and op.end_ns > enqueue.begin_ns
        for op in view.grouped.purges.get(case.topic, ())
    )


def _vanished(view: RunView, found: Found, case: Case, acknowledged: dict[int, Op]) -> None:
    """ "Not found" for a task that was acknowledged and that no request has tried to end."""
    for look in case.gets:
        if look.outcome != "fail" or look.error != "TASK_NOT_FOUND":
            continue
        for incarnation, op in acknowledged.items():
            if op.end_ns < look.begin_ns and not _ended(view, case, incarnation, op, certain=False):
                summary = f"was enqueued at {view.at(op)}, and not found at {view.at(look)}"
                found.anomalies.append(view.anomaly("G2", summary, case, op, look))
                return
