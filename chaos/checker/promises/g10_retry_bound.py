"""G10 retry bound: at most ``max_attempts`` leases in a run, and none sooner than the backoff.

A lease that was released or snoozed does not count, nor may have one whose release or snooze has
an unknown outcome; the snoozes of a run are bounded themselves. A redrive begins another run. The
backoff counts from the nack, or from the lease's expiry.
"""

from __future__ import annotations

import sys
from itertools import pairwise

from chaos.checker.cases import Case, Delivery
from chaos.checker.verdict import Found
from chaos.checker.view import MS, RunView
from chaos.history.journal import Entry
from chaos.history.operations import (
    RetrySettings,
)
from chaos.history.reader import Op

SNOOZES_MAX_COUNT = 10_000
"""Snoozes of one run, as the API documents it."""


def check(view: RunView) -> Found:
    """Each run of attempts, by replies and by the journal."""
    found = Found()
    for case in view.cases:
        runs: dict[tuple[int, int], list[Delivery]] = {}
        for delivery in case.deliveries:
            found.looked_at += 1
            runs.setdefault((delivery.lease.incarnation, delivery.lease.run), []).append(delivery)
        for leases in runs.values():
            policy = view.policy(case, leases[0])
            _count(view, found, case, leases, policy)
            for first, second in pairwise(leases):
                if second.lease.attempt == first.lease.attempt + 1:
                    _backoff(view, found, case, (first, second), policy)
        _entries(view, found, case)
    return found


def _given_back(case: Case, delivery: Delivery) -> bool:
    """Whether its attempt was given back by a release or snooze, or may have been."""
    ops = case.with_token(delivery.lease.token, "release", "snooze")
    return any(op.may_have_happened for op in ops)


def _count(
    view: RunView, found: Found, case: Case, leases: list[Delivery], policy: RetrySettings
) -> None:
    most = policy.max_attempts or 1
    spent = [delivery for delivery in leases if not _given_back(case, delivery)]
    beyond = next((d for d in leases if d.lease.attempt > most), None)
    if beyond is None and len(spent) > most:
        beyond = spent[most]
    if beyond is not None:
        number = max(beyond.lease.attempt, len(spent))
        summary = f"was delivered at {view.at(beyond.op)}, attempt {number} of {most}"
        found.anomalies.append(view.anomaly("G10", summary, case, beyond.op))
        return
    for first, second in pairwise(leases):
        if second.lease.attempt <= first.lease.attempt and not _given_back(case, first):
            summary = (
                f"was delivered as attempt {first.lease.attempt} at {view.at(first.op)}, and "
                f"again as attempt {second.lease.attempt} at {view.at(second.op)}: the count "
                f"that bounds retries did not move"
            )
            found.anomalies.append(view.anomaly("G10", summary, case, first.op, second.op))
            return


def _backoff(
    view: RunView, found: Found, case: Case, pair: tuple[Delivery, Delivery], policy: RetrySettings
) -> None:
    first, second = pair
    backoff_ms = base_backoff_ms(policy, first.lease.attempt)
    if case.reschedules and any(op.outcome != "fail" for op in case.reschedules):
        return  # a reschedule names the due time
    nacks = case.with_token(first.lease.token, "nack")
    ended = [op for op in nacks if op.may_have_happened and op.begin_ns < second.end_ns]
    if any(op.request.delay_ms is not None for op in ended):
        return  # its own delay is G5's
    if ended:
        # Not before it was sent; which of several took effect is not known.
        began_ns = min(op.begin_ns for op in ended)
        early_ms = backoff_ms - (second.end_ns - began_ns) / MS
        early_by_store = first.at_ms + backoff_ms - second.at_ms
        # A nack that is not known to have taken effect may have come after the lease had expired.
        expired = first.lease.expire_ms + backoff_ms <= second.at_ms
        if expired and not any(op.ok for op in ended):
            return
        if early_ms > view.bounds.clock_error_ms or early_by_store > 0:
            _too_soon(view, found, case, (first, second, ended[0]), backoff_ms)
    elif (
        # Sooner than the expiry itself is G7's.
        first.lease.expire_ms <= second.at_ms < first.lease.expire_ms + backoff_ms
        and not _given_back(case, first)
    ):
        _too_soon(view, found, case, (first, second, None), backoff_ms)


def _too_soon(
    view: RunView,
    found: Found,
    case: Case,
    witnesses: tuple[Delivery, Delivery, Op | None],
    backoff_ms: float,
) -> None:
    first, second, nack = witnesses
    ended = f"nacked at {view.at(nack)}" if nack else f"to expire at {first.lease.expire_ms} ms"
    summary = (
        f"was delivered at {view.at(first.op)}, {ended}, and delivered again at "
        f"{view.at(second.op)}, sooner than the backoff of {backoff_ms:.0f} ms"
    )
    ops = [op for op in (first.op, nack, second.op) if op is not None]
    found.anomalies.append(view.anomaly("G10", summary, case, *ops))


def _entries(view: RunView, found: Found, case: Case) -> None:
    """The journal counts attempts too, also those whose replies were lost."""
    if not case.entries:
        return
    known = bool(case.enqueues) or case.topic in view.run.topics
    policy = view.policy(case) if known else RetrySettings(sys.maxsize, 0)
    most = policy.max_attempts or 1
    # A nack that names a delay need not wait for the backoff.
    waits = (
        {"expire"}
        if any(op.request.delay_ms is not None for op in case.nacks)
        else {"expire", "nack"}
    )
    leases: dict[tuple[int, int], int] = {}
    snoozes: dict[tuple[int, int], int] = {}
    before: Entry | None = None
    for witness in case.entries:
        entry = witness[1]
        key = (entry.incarnation, entry.run)
        if entry.op in waits and entry.after == "scheduled":
            backoff_ms = base_backoff_ms(policy, entry.attempt)
            if entry.due_ms < entry.at_ms + backoff_ms and not view.journal_alone:
                summary = (
                    f"is to be tried again {entry.due_ms - entry.at_ms} ms after attempt "
                    f"{entry.attempt} ended at {entry.at_ms} ms, sooner than the backoff of "
                    f"{backoff_ms:.0f} ms"
                )
                found.anomalies.append(view.of_entries("G10", summary, witness))
                return
        if entry.op == "snooze":
            snoozes[key] = snoozes.get(key, 0) + 1
            if snoozes[key] > SNOOZES_MAX_COUNT:
                summary = f"was snoozed {snoozes[key]} times in one run, at {entry.at_ms} ms"
                found.anomalies.append(view.of_entries("G10", summary, witness))
                return
        if (
            entry.op in {"release", "snooze"}
            and before is not None
            and (before.incarnation, before.run) == key
            and entry.attempt != before.attempt - 1
        ):
            summary = (
                f"was handed back at {entry.at_ms} ms with {entry.attempt} attempts spent, after "
                f"attempt {before.attempt}: it gives back one"
            )
            found.anomalies.append(view.of_entries("G10", summary, witness))
            return
        if entry.op in {"release", "snooze"}:
            leases[key] = leases.get(key, 0) - 1
        elif entry.op == "lease":
            leases[key] = number = leases.get(key, 0) + 1
            if number > most:
                summary = f"was leased at {entry.at_ms} ms, attempt {number} of {most}"
                found.anomalies.append(view.of_entries("G10", summary, witness))
                return
            same = before is not None and (before.incarnation, before.run) == key
            if same and before is not None and entry.attempt != before.attempt + 1:
                summary = (
                    f"was leased at {entry.at_ms} ms as attempt {entry.attempt}, after attempt "
                    f"{before.attempt}: the count that bounds retries did not move by one"
                )
                found.anomalies.append(view.of_entries("G10", summary, witness))
                return
        before = entry


def base_backoff_ms(policy: RetrySettings, attempt: int) -> float:
    """The wait after an attempt, without jitter."""
    initial_ms = policy.initial_backoff_ms or 0
    if not initial_ms:
        return 0.0
    # Two to the 64th of a millisecond is longer than any bound on it.
    grown = initial_ms * float(policy.multiplier or 1.0) ** min(attempt - 1, 64)
    return float(min(policy.max_backoff_ms or 0, grown))
