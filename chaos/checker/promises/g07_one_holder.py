"""G7 one holder: two unexpired, unsuperseded leases on one task never exist at once.

Each lease against the next: before it, the first one has expired, or its holder has ended it
(or may have), or it was revoked. Expiry is judged by the store's clock and by the controller's,
that one less the clock error.
"""

from __future__ import annotations

from itertools import pairwise

from chaos.checker.cases import Case, Delivery
from chaos.checker.chain import broken_links
from chaos.checker.order import broken_order
from chaos.checker.verdict import Found
from chaos.checker.view import MS, RunView


def check(view: RunView) -> Found:
    """Each pair of leases that follow each other."""
    found = Found(anomalies=[*broken_order(view, "G7"), *broken_links(view, "G7")])
    for case in view.cases:
        found.looked_at += len(case.deliveries)
        for first, second in pairwise(case.deliveries):
            if not _ended(view, case, first, second):
                _judge(view, found, case, first, second)
    return found


def _ended(view: RunView, case: Case, first: Delivery, second: Delivery) -> bool:
    """Whether the first lease was ended, or may have been, before the second began."""
    enders = case.with_token(first.lease.token, "ack", "run_again", "nack", "release", "snooze")
    enders += [op for op in case.cancels if op.request.revoke]
    enders += view.grouped.purges.get(case.topic, [])
    return any(op.may_have_happened and op.begin_ns < second.end_ns for op in enders)


def _judge(view: RunView, found: Found, case: Case, first: Delivery, second: Delivery) -> None:
    expire_ms = first.lease.expire_ms
    lease_ms = first.lease_ms
    held_ns = None if lease_ms is None else first.begin_ns + lease_ms * MS
    # A prolongation whose reply was lost proves nothing.
    for op in case.with_token(first.lease.token, "extend"):
        before = op.ok and op.end_ns < second.begin_ns
        # A reply of a stream was asked for when its credit was given, long before it was leased.
        if before or (op.ok and 0 < op.reply.revision < second.lease.revision):
            expire_ms = max(expire_ms, op.reply.expire_ms)
            if before and held_ns is not None and op.request.lease_ms is not None:
                held_ns = max(held_ns, op.begin_ns + op.request.lease_ms * MS)
    by_controller = (
        held_ns is not None
        and second.end_ns < held_ns - view.bounds.clock_error_ms * MS
        and second.begin_ns > first.end_ns
    )
    if second.at_ms >= expire_ms and not by_controller:
        return
    found.anomalies.append(
        view.anomaly(
            "G7",
            f"was delivered at {view.at(first.op)} with a lease until {expire_ms} ms, and to "
            f"another at {view.at(second.op)}, {second.at_ms} ms by the store's clock, while "
            f"the first had not been ended",
            case,
            first.op,
            second.op,
        )
    )
