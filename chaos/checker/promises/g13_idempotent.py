"""G13 idempotent: repeating a request with the same id or token never has a second effect.

A Retrieve that is repeated with its request_id reports the same leases again: that is not a second
delivery, and other leases are a second effect. An enqueue of an id that is taken makes no second
incarnation while its tombstone lives. A token gives one verdict, and a repeat of it moves nothing.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from chaos.checker.cases import Case, Delivery
from chaos.checker.chain import broken_links
from chaos.checker.verdict import Anomaly, Found
from chaos.checker.view import MS, RunView
from chaos.history.operations import ENDED
from chaos.history.reader import Op


def check(view: RunView) -> Found:
    """Retrieves by request_id, then each task."""
    found = Found(anomalies=list(broken_links(view, "G13")))
    _retrieves(view, found)
    for case in view.cases:
        if len(case.enqueues) > 1:
            _enqueues(view, found, case)
        for op in case.cancels:
            found.looked_at += op.ok
        _effects(view, found, case, [op for op in case.cancels if op.ok and not op.reply.already])
        for token, ops in case.settles.items():
            acks = [op for op in ops if op.ok and op.op == "ack"]
            if len(acks) > 1:
                found.looked_at += 1
                _same_revision(view, found, case, acks, token)
            again = [op for op in ops if op.ok and op.op == "run_again"]
            if len(again) > 1:
                found.looked_at += 1
                _same_revision(view, found, case, again, token)
        _lives(view, found, case)
        if view.journaled(case.topic):
            _more_than_asked(view, found, case)
            _taken(view, found, case)
    return found


def _retrieves(view: RunView, found: Found) -> None:
    by_request: dict[str, list[Op]] = {}
    for op in view.grouped.retrieves:
        if op.ok and op.request.request_id and op.reply.leases:
            by_request.setdefault(op.request.request_id, []).append(op)
    for ops in by_request.values():
        if len(ops) < 2:
            continue
        found.looked_at += 1
        first = min(ops, key=lambda op: op.end_ns)
        granted = {lease.token for lease in first.reply.leases}
        # Until then the request is certainly remembered; later its id may be used again.
        kept_ms = max(lease.expire_ms for lease in first.reply.leases)
        for op in ops:
            others = [lease for lease in op.reply.leases if lease.token not in granted]
            if others and others[0].store_ms < kept_ms and op.begin_ns > first.end_ns:
                case = view.grouped.case(others[0].topic, others[0].id)
                summary = (
                    f"was delivered at {view.at(op)} by a repeat of request "
                    f"{op.request.request_id}, which had been granted other leases at "
                    f"{view.at(first)}"
                )
                found.anomalies.append(view.anomaly("G13", summary, case, first, op))
                break


def _enqueues(view: RunView, found: Found, case: Case) -> None:
    """Two incarnations of an id that was not to be replaced, within the life of a tombstone."""
    made = [op for op in case.enqueues if op.ok and op.reply.created and not op.request.replaces]
    found.looked_at += len(case.enqueues)
    keep_ns = view.settings(case.topic).retention_ms * MS
    for first, second in pairwise(made):
        if second.reply.incarnation == first.reply.incarnation:
            continue
        if second.begin_ns - first.end_ns < keep_ns and second.reply.incarnation:
            summary = (
                f"was created at {view.at(first)} as incarnation {first.reply.incarnation}, and "
                f"by a repeat at {view.at(second)} as {second.reply.incarnation}"
            )
            found.anomalies.append(view.anomaly("G13", summary, case, first, second))
            return


def _effects(view: RunView, found: Found, case: Case, cancels: list[Op]) -> None:
    """Two cancels of one incarnation that both say that it was they."""
    first: dict[int, Op] = {}
    for op in cancels:
        known = first.setdefault(op.reply.incarnation, op)
        if known is not op:
            summary = f"was cancelled at {view.at(known)}, and once more at {view.at(op)}"
            found.anomalies.append(view.anomaly("G13", summary, case, known, op))
            return


def _same_revision(view: RunView, found: Found, case: Case, acks: list[Op], token: str) -> None:
    """A repeated ack tells of the revision that the first one made."""
    first = acks[0]
    for op in acks[1:]:
        if op.reply.revision != first.reply.revision:
            summary = (
                f"was acked as revision {first.reply.revision} at {view.at(first)}, and with the "
                f"same token {token[:8]} as revision {op.reply.revision} at {view.at(op)}"
            )
            found.anomalies.append(view.anomaly("G13", summary, case, first, op))
            return


def _lives(view: RunView, found: Found, case: Case) -> None:
    """More incarnations delivered than there are requests that can have made one.

    However often it is repeated, a token makes one next run. The rule also sees incarnations in
    lineages that the surviving journal does not hold.
    """
    firsts: dict[int, Delivery] = {}
    for delivery in case.deliveries:
        firsts.setdefault(delivery.lease.incarnation, delivery)
    if len(firsts) < 2:
        return
    asked = sum(op.outcome != "fail" for op in case.enqueues)
    asked += len({op.request.token for op in case.run_agains if op.outcome != "fail"})
    # None at all is a phantom: G1.
    if 0 < asked < len(firsts):
        ops = [delivery.op for delivery in firsts.values()]
        summary = (
            f"was delivered as {len(firsts)} incarnations, the last at {view.at(ops[-1])}, and was "
            f"asked for {asked} times"
        )
        found.anomalies.append(view.anomaly("G13", summary, case, *ops))


def _more_than_asked(view: RunView, found: Found, case: Case) -> None:
    """More transitions in the journal than requests that can have made them."""
    if not case.entries:
        return
    made = Counter(entry.op for _, entry in case.entries)
    asked = {
        "enqueue": case.makers,
        "cancel": case.cancels,
        "reschedule": case.reschedules,
        "ack": [*case.acks, *case.run_agains],
        "nack": case.nacks,
        "release": case.releases,
        "snooze": case.snoozes,
        "redrive": [*case.redrives, *view.grouped.redrives_all.get(case.topic, ())],
    }
    for kind, ops in asked.items():
        able = [op for op in ops if op.may_have_happened]
        # None at all is another checker's finding: nothing was repeated.
        if able and made[kind] > len(able):
            entries = [witness for witness in case.entries if witness[1].op == kind]
            anomaly = view.of_entries(
                "G13",
                f"has {made[kind]} times {kind} in the journal, and was asked {len(able)} times "
                f"(first at {view.at(able[0])})",
                *entries,
            )
            found.anomalies.append(
                Anomaly(
                    "G13",
                    anomaly.summary,
                    case.topic,
                    case.id,
                    tuple(op.end if op.end >= 0 else op.index for op in able),
                    anomaly.entries,
                )
            )
            return


def _taken(view: RunView, found: Found, case: Case) -> None:
    """An incarnation in the journal while the one before it, or its tombstone, kept the id."""
    if sum(entry.op == "enqueue" for _, entry in case.entries) < 2:
        return
    next_runs = case.next_runs()
    replacing = any(
        op.request.on_conflict in {"replace_finished", "debounce"} and op.may_have_happened
        for op in case.enqueues
    )
    keep_ms = view.settings(case.topic).retention_ms
    for before, witness in pairwise(case.entries):
        last, entry = before[1], witness[1]
        if entry.op != "enqueue" or entry.incarnation in next_runs:
            continue
        if last.op in {"replace", "set_aside"}:
            continue
        finished = last.after in ENDED
        if finished and (replacing or entry.at_ms >= last.at_ms + keep_ms):
            continue
        kept = f"kept its tombstone for {keep_ms} ms" if finished else "was there"
        summary = (
            f"was made as incarnation {entry.incarnation} at {entry.at_ms} ms, while incarnation "
            f"{last.incarnation}, {last.after} since {last.at_ms} ms, {kept}"
        )
        found.anomalies.append(view.of_entries("G13", summary, before, witness))
        return
