"""G8 fenced: ack, nack, extend, release and snooze with a superseded token change nothing.

A token is superseded by the next lease, by the verdict it brought itself, by a cancel, and, where
its lease had lapsed, by a reschedule. Expiry alone does not supersede it. A verdict that is
repeated gets its old answer until the next lease.
"""

from __future__ import annotations

from collections.abc import Iterator

from chaos.checker.cases import Case, Delivery
from chaos.checker.chain import PAST, broken_links
from chaos.checker.operators import changed_at_another_revision
from chaos.checker.order import broken_order
from chaos.checker.verdict import Found
from chaos.checker.view import RunView
from chaos.history.reader import Op

VERDICTS = ("ack", "run_again", "nack", "release", "snooze")

Break = tuple[str, tuple[Op, ...]]


def check(view: RunView) -> Found:
    """Each accepted operation that brought a token; one anomaly a token."""
    found = Found(
        anomalies=[
            *broken_order(view, "G8"),
            *broken_links(view, "G8"),
            *changed_at_another_revision(view),
        ]
    )
    for case in view.cases:
        for token, ops in case.settles.items():
            accepted = [op for op in ops if op.ok]
            found.looked_at += len(ops)
            if not accepted:
                continue
            delivery = case.tokens.get(token)
            broken = next(_breaks(view, case, accepted, delivery), None)
            if broken is not None:
                found.anomalies.append(view.anomaly("G8", broken[0], case, *broken[1]))
    return found


def _breaks(
    view: RunView, case: Case, accepted: list[Op], delivery: Delivery | None
) -> Iterator[Break]:
    yield from _two_verdicts(view, accepted)
    if delivery is None:
        return
    for rule in (_next_lease, _cancelled, _rescheduled):
        yield from rule(view, case, accepted, delivery)


def _two_verdicts(view: RunView, accepted: list[Op]) -> Iterator[Break]:
    first: Op | None = None
    for op in accepted:
        if op.op in VERDICTS and first is None:
            first = op
        elif (
            first is not None
            and op.op != first.op
            and (op.op in VERDICTS or op.begin_ns > first.end_ns)
        ):
            summary = (
                f"was {PAST[first.op]} at {view.at(first)}, and {PAST[op.op]} at {view.at(op)}"
            )
            yield f"{summary} with the same token", (first, op)


def _next_lease(
    view: RunView, case: Case, accepted: list[Op], delivery: Delivery
) -> Iterator[Break]:
    for other in case.deliveries:
        if other.order <= delivery.order:
            continue
        for op in accepted:
            if op.op == "run_again" and other.lease.incarnation != delivery.lease.incarnation:
                continue  # a repeat reports the run that it made, whatever holds that by now
            if other.end_ns < op.begin_ns or op.reply.revision > other.lease.revision:
                summary = f"was delivered to another at {view.at(other.op)}, and {PAST[op.op]} at "
                late = f"{view.at(op)} with the token from before that"
                yield summary + late, (delivery.op, other.op, op)


def _cancelled(
    view: RunView, case: Case, accepted: list[Op], delivery: Delivery
) -> Iterator[Break]:
    revoked = any(op.request.revoke for op in case.cancels if op.may_have_happened)
    for cancel in case.cancels:
        if not cancel.ok or cancel.reply.incarnation != delivery.lease.incarnation:
            continue
        if delivery.begin_ns > cancel.end_ns:
            continue  # it revoked nothing, and should not have been followed by a lease: G4
        for op in accepted:
            # An ack after a cancel that could not revoke says that the cancel was none: G4.
            if op.begin_ns > cancel.end_ns and (revoked or op.op != "ack"):
                summary = f"was cancelled at {view.at(cancel)}, and {PAST[op.op]} at {view.at(op)}"
                yield f"{summary} with the token that this revoked", (delivery.op, cancel, op)


def _rescheduled(
    view: RunView, case: Case, accepted: list[Op], delivery: Delivery
) -> Iterator[Break]:
    """The lapsed task has changed since: its old token no longer finishes it."""
    for move in case.reschedules:
        if not move.ok or move.reply.revision < delivery.lease.revision:
            continue
        for op in accepted:
            if op.op == "ack" and op.begin_ns > move.end_ns:
                summary = f"was rescheduled at {view.at(move)}, and acked at {view.at(op)}"
                yield f"{summary} with a token from before", (delivery.op, move, op)
