"""The order that replies give, held against real time: the server is not trusted.

Revisions of a task only grow. So when one operation was over before another began, the later one
must not speak of an older revision: if it does, what the first one was promised has been undone.
"""

from __future__ import annotations

from collections.abc import Iterator

from chaos.checker.cases import Case
from chaos.checker.verdict import Anomaly
from chaos.checker.view import RunView
from chaos.history.reader import Op

UNDONE = {
    "enqueue": "G2",
    "get": "G2",
    "delete_dead": "G2",
    "cancel": "G4",
    "reschedule": "G5",
    "retrieve": "G7",
    "extend": "G8",
    "nack": "G8",
    "release": "G8",
    "snooze": "G8",
    "ack": "G9",
    "run_again": "G9",
}
"""What is broken when the effect of such an operation is undone."""

DONE = {
    "enqueue": "enqueued",
    "get": "seen",
    "delete_dead": "deleted",
    "cancel": "cancelled",
    "reschedule": "rescheduled",
    "retrieve": "delivered",
    "extend": "extended",
    "nack": "nacked",
    "release": "released",
    "snooze": "snoozed",
    "ack": "acked",
    "run_again": "run again",
}


def broken_order(view: RunView, promise: str) -> list[Anomaly]:
    """Where the order is broken in a way that breaks this promise."""
    if view.order_breaks is None:
        view.order_breaks = {}
        for case in view.cases:
            for first, second, revisions in _breaks(case):
                anomaly = view.anomaly(
                    UNDONE[first.op],
                    f"was {DONE[first.op]} as revision {revisions[0]} at {view.at(first)}, and "
                    f"{DONE[second.op]} after that as revision {revisions[1]} at {view.at(second)}",
                    case,
                    first,
                    second,
                )
                view.order_breaks.setdefault(anomaly.promise, []).append(anomaly)
    return view.order_breaks.get(promise, [])


def _replies(case: Case) -> Iterator[tuple[Op, int]]:
    """Every reply with the revision at which the task was at some moment of the operation."""
    for op in case.all_ops():
        if not op.ok:
            continue
        if op.op == "retrieve":
            for lease in op.reply.leases:
                if lease.id == case.id and lease.topic == case.topic:
                    yield op, lease.revision
        elif op.op == "run_again" and len(case.with_token(op.request.token, "run_again")) > 1:
            continue  # a repeat reports the revision that was made, however old that is
        elif op.reply.revision:
            yield op, op.reply.revision


def _breaks(case: Case) -> Iterator[tuple[Op, Op, tuple[int, int]]]:
    """The first break of each kind of operation."""
    replies = list(_replies(case))
    if len(replies) < 2:
        return
    by_end = sorted(replies, key=lambda pair: pair[0].end_ns)
    # A history whose replies come in the order of their revisions needs no second look.
    if all(by_end[i][1] <= by_end[i + 1][1] for i in range(len(by_end) - 1)):
        return
    replies.sort(key=lambda pair: pair[0].begin_ns)
    over, latest, latest_revision = 0, replies[0][0], 0
    found: set[str] = set()
    for op, revision in replies:
        while over < len(by_end) and by_end[over][0].end_ns < op.begin_ns:
            if by_end[over][1] > latest_revision:
                latest, latest_revision = by_end[over]
            over += 1
        if latest_revision > revision and latest.op not in found:
            found.add(latest.op)
            yield latest, op, (latest_revision, revision)
