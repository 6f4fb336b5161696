"""G1 no phantom: only enqueued tasks are delivered, with the bytes that were enqueued."""

from __future__ import annotations

from chaos.checker.cases import Case
from chaos.checker.verdict import Found
from chaos.checker.view import RunView
from chaos.history.operations import (
    Lease,
    Seen,
)
from chaos.history.reader import Op


def check(view: RunView) -> Found:
    """Each delivery and each look at a payload against what was sent by then."""
    found = Found()
    for case in view.cases:
        # Not by fate: what a deposed store took and lost was sent all the same.
        makers = [op for op in case.makers if op.outcome != "fail"]
        for delivery in case.deliveries:
            found.looked_at += 1
            _judge(view, found, case, makers, (delivery.op, delivery.lease))
        for op in case.gets:
            if op.ok and op.reply.payload is not None:
                found.looked_at += 1
                _judge(view, found, case, makers, (op, op.reply))
        if case.entries and not makers:
            found.anomalies.append(
                view.of_entries(
                    "G1", "is in the journal, and no client enqueued it", case.entries[0]
                )
            )
    return found


def _judge(
    view: RunView, found: Found, case: Case, makers: list[Op], witness: tuple[Op, Lease | Seen]
) -> None:
    op, reported = witness
    payload, incarnation = reported.payload, reported.incarnation
    verb = "delivered" if op.op == "retrieve" else "seen"
    sent = [maker for maker in makers if maker.begin_ns <= op.end_ns]
    if not any(case.payload_of(maker) == payload for maker in sent):
        summary = f"was {verb} with {payload!r} at {view.at(op)}, which no client had enqueued"
        found.anomalies.append(view.anomaly("G1", summary, case, op))
        return
    mine = [
        maker
        for maker in makers
        if maker.ok
        and (maker.op == "run_again" or maker.reply.created)
        and maker.reply.incarnation == incarnation
    ]
    if mine and all(case.payload_of(maker) not in {payload, None} for maker in mine):
        summary = (
            f"was enqueued with {case.payload_of(mine[0])!r} as incarnation {incarnation} at "
            f"{view.at(mine[0])}, {verb} with {payload!r} at {view.at(op)}"
        )
        found.anomalies.append(view.anomaly("G1", summary, case, mine[0], op))
