"""G2 no loss: an acknowledged enqueue ends, or is still held; never nothing.

That it ended needs a cause: an ack, with or without a next run, a cancel, a purge or a
replacement that happened, or that may have happened. The store's own statement does not excuse it.
"""

from __future__ import annotations

from chaos.checker.cases import Case
from chaos.checker.operators import counted_and_not_done, denied_topics
from chaos.checker.order import broken_order
from chaos.checker.verdict import Anomaly, Found
from chaos.checker.view import MS, RunView
from chaos.history.reader import Note, Op
from chaos.history.run_folder import FinalTopic


def check(view: RunView) -> Found:
    """Each acknowledged incarnation, by what was left after the drain."""
    found = Found(
        anomalies=[
            *broken_order(view, "G2"),
            *served_after_loss(view),
            *counted_and_not_done(view),
            *denied_topics(view),
        ]
    )
    final = view.final
    assert final is not None
    if not final.drained:
        found.unknown.append("the drain did not finish")
    found.anomalies += [
        Anomaly("G2", f"key {key} is not the same on all nodes of the store after the drain")
        for key in final.differing or ()
    ]
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
        if topic is None and case.topic in view.grouped.deleted:
            topic = FinalTopic([])
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
    """ "Not found" for what was acknowledged, and what no client has tried to end.

    What has ended is still found while its tombstone lives.
    """
    keep_ns = (view.settings(case.topic).retention_ms - view.bounds.clock_error_ms) * MS
    for look in case.gets:
        if look.outcome != "fail" or look.error != "TASK_NOT_FOUND":
            continue
        for incarnation, op in acknowledged.items():
            if op.end_ns >= look.begin_ns:
                continue
            if look.end_ns - op.end_ns < keep_ns or not _ended(
                view, case, incarnation, op, certain=False
            ):
                summary = f"was enqueued at {view.at(op)}, and not found at {view.at(look)}"
                found.anomalies.append(view.anomaly("G2", summary, case, op, look))
                return


DENIALS = frozenset(
    {
        "TASK_NOT_FOUND",
        "TASK_FINISHED",
        "TASK_LEASED",
        "TASK_READY",
        "LEASE_LOST",
        "TASK_ID_CONFLICT",
        "TOPIC_NOT_FOUND",
    }
)
"""Errors that state something about a task or topic."""


def served_after_loss(view: RunView) -> list[Anomaly]:
    """Replies of a topic that lost what it had acknowledged, as if it had lost nothing.

    A loss note says that every server had acknowledged something that was lost: each of them
    must refuse (ROLLBACK_DETECTED) until an operator accepts the loss.
    """
    return [
        anomaly
        for note in view.history.notes
        if note.op == "loss" and (anomaly := _served(view, note)) is not None
    ]


def _served(view: RunView, note: Note) -> Anomaly | None:
    loss = note.value
    ops = [op for op in view.history.ops if loss.topic in _topics(op)]
    lost = next(
        (
            op
            for op in ops
            if op.ok
            and op.end_ns <= note.time_ns
            and _revision(op, loss.topic) > loss.kept_revision
        ),
        None,
    )
    if lost is None:
        return None
    for op in ops:
        if op.begin_ns > note.time_ns and (op.ok or op.error in DENIALS):
            verb = "answered" if op.ok else f"answered with {op.error}"
            return Anomaly(
                "G2",
                f"topic {loss.topic} acknowledged {lost.op} at {view.at(lost)} and lost it, and "
                f"{verb} {op.op} at {view.at(op)} as if it had not",
                loss.topic,
                events=(lost.end, note.index, op.end),
            )
    return None


def _topics(op: Op) -> list[str]:
    return op.request.topics if op.op == "retrieve" else [op.request.topic]


def _revision(op: Op, topic: str) -> int:
    """The greatest revision of the topic that a reply names; 0: none."""
    if op.op == "retrieve":
        leases = (lease for lease in op.reply.leases if lease.topic == topic)
        return max((lease.revision for lease in leases), default=0)
    return int(getattr(op.reply, "revision", 0))
