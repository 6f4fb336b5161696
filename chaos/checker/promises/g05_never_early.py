"""G5 never early: no delivery before the due time, beyond the stated clock error.

Judged twice. By the store's clock: the moment of the lease against the due time that was last
acknowledged. By the controller's: a delay cannot be over sooner than that long after its request
was sent. The first finds a store that does not keep to its word, the second one whose word, or
whose clock, is wrong.
"""

from __future__ import annotations

from chaos.checker.cases import Case, Delivery
from chaos.checker.operators import done_while_paused
from chaos.checker.order import broken_order
from chaos.checker.verdict import Found
from chaos.checker.view import MS, RunView
from chaos.history.reader import Op


def check(view: RunView) -> Found:
    """Each delivery, and each promotion and lease in the journal."""
    found = Found(anomalies=[*broken_order(view, "G5"), *done_while_paused(view)])
    error_ms = view.bounds.clock_error_ms
    slack: list[float] = []
    for case in view.cases:
        for delivery in case.deliveries:
            found.looked_at += 1
            _by_store(view, found, case, delivery)
            source = _due_by(case, delivery)
            if source is not None:
                early_ms = _early_ms(view, case, source, delivery)
                if early_ms is not None:
                    slack.append(-early_ms)
                    if early_ms > error_ms:
                        summary = (
                            f"was due by the request at {view.at(source)} and delivered at "
                            f"{view.at(delivery.op)}, {early_ms:.0f} ms early by the controller's "
                            f"clock"
                        )
                        found.anomalies.append(
                            view.anomaly("G5", summary, case, source, delivery.op)
                        )
        for witness in case.entries:
            entry = witness[1]
            if entry.op in {"promote", "lease"} and entry.at_ms < entry.due_ms:
                summary = (
                    f"was due at {entry.due_ms} ms, {entry.op}d at {entry.at_ms} ms by the "
                    f"store's clock"
                )
                found.anomalies.append(view.of_entries("G5", summary, witness))
    found.figures = {"max clock error (ms)": error_ms}
    if slack:
        found.figures["earliest by the controller's clock (ms after due)"] = round(min(slack), 1)
    return found


def _by_store(view: RunView, found: Found, case: Case, delivery: Delivery) -> None:
    """The reply's own due time, and the one that was acknowledged before."""
    lease = delivery.lease
    source = _due_by(case, delivery)
    due_ms = lease.due_ms
    if source is not None:
        due_ms = max(due_ms, source.reply.due_ms)
    if delivery.at_ms < due_ms:
        ops = [op for op in (source, delivery.op) if op is not None]
        summary = (
            f"was due at {due_ms} ms and delivered at {delivery.at_ms} ms by the store's clock, "
            f"{due_ms - delivery.at_ms} ms early, at {view.at(delivery.op)}"
        )
        found.anomalies.append(view.anomaly("G5", summary, case, *ops))


def _due_by(case: Case, delivery: Delivery) -> Op | None:
    """The acknowledged request that this delivery's due time comes from; None if that is open.

    Retries take theirs from the nack or snooze that asked for a delay; a backoff is G10's.
    """
    lease = delivery.lease
    if lease.run > 1:
        return None
    if lease.attempt > 1 or lease.promotion > 1:
        putters = [
            op
            for op in (*case.nacks, *case.snoozes)
            if op.ok
            and op.request.delay_ms is not None
            and (op.op == "snooze" or op.reply.state == "scheduled")
            and (before := case.tokens.get(op.request.token)) is not None
            and before.lease.incarnation == lease.incarnation
            and before.lease.promotion == lease.promotion - 1
            and before.lease.attempt == lease.attempt - (op.op == "nack")
        ]
        moved = any(op.outcome != "fail" for op in case.reschedules)
        return putters[0] if len(putters) == 1 and not moved else None
    moves = [
        op for op in case.reschedules if op.outcome != "fail" and op.begin_ns < delivery.end_ns
    ]
    if any(not op.ok for op in moves):
        return None
    makers = [op for op in case.makers if op.ok and op.reply.incarnation == lease.incarnation]
    if len(makers) != 1:
        return None
    if makers[0].op == "run_again":
        # One that was asked for again may have been made by the request before.
        if len(case.with_token(makers[0].request.token, "run_again")) > 1 or moves:
            return None
        return makers[0]
    reply = makers[0].reply
    if not reply.created and (moves or len(case.enqueues) > 1 or reply.revision > lease.revision):
        # A repeat found the task there: whether its due time was still the first one is not
        # certain. By then a snooze or a nack may have given the task another one.
        return None
    mine = [op for op in moves if makers[0].reply.revision < op.reply.revision < lease.revision]
    return max(mine, key=lambda op: op.reply.revision, default=makers[0])


def _early_ms(view: RunView, case: Case, source: Op, delivery: Delivery) -> float | None:
    """By the controller's clock; negative: late. None: the request does not say.

    A verdict that was repeated may have taken effect when it was first sent.
    """
    request = source.request
    token = getattr(request, "token", "")
    same = [op for op in case.with_token(token, source.op) if op.may_have_happened]
    asked_ns = min((op.begin_ns for op in same), default=source.begin_ns)
    if getattr(request, "on_conflict", "") == "debounce":
        return None  # its limit may have made it due before the delay was over
    if request.delay_ms is not None:
        return float(request.delay_ms - (delivery.end_ns - asked_ns) / MS)
    if getattr(request, "due_ms", None) is not None and view.run.wall_ms:
        return float(request.due_ms - (view.run.wall_ms + delivery.end_ns / MS))
    return None
