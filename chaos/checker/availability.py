"""Which operations the system served, and for how long it served none of a kind."""

from __future__ import annotations

from collections.abc import Iterable

from chaos.history.operations import CUT_OFF
from chaos.history.reader import Op

UNSERVED = frozenset(
    {
        "UNAVAILABLE",
        "STORE_UNREACHABLE",
        "NOT_ENOUGH_REPLICAS",
        "WRITE_OUTCOME_UNKNOWN",
        "ROLLBACK_DETECTED",
        "CLOCK_UNSAFE",
        "OUTCOME_UNKNOWN",
        "TRANSPORT_ERROR",
        "NOT_CONNECTED",
        "RESOURCE_EXHAUSTED",
        "OVERLOADED",
        "STORE_FULL",
        "TOPIC_FULL",
        "REQUEST_EXPIRED",
        "TOPIC_CHANGED",
        "UNKNOWN",
    }
)
"""Errors that say "not now"; the others are answers, such as "too late"."""


def served(op: Op) -> bool | None:
    """Whether it was answered; None: it does not count."""
    if op.outcome == "ok":
        return True
    if op.error == CUT_OFF or op.end < 0:
        return None
    return op.outcome == "fail" and op.error not in UNSERVED


def served_share(ops: Iterable[Op]) -> float:
    """The share of the requests that count; 1 if there are none."""
    outcomes = [outcome for op in ops if (outcome := served(op)) is not None]
    return sum(outcomes) / len(outcomes) if outcomes else 1.0


def longest_outages(ops: Iterable[Op]) -> dict[str, int]:
    """Kind → ns from the sending of the first request that was not served to the next reply.

    A request that was served late is an outage of its own, less the wait that it asked for.
    """
    longest: dict[str, int] = {}
    failing: dict[str, int] = {}
    last_ns: dict[str, int] = {}
    for op in sorted(ops, key=lambda op: op.closed_ns):
        outcome = served(op)
        if outcome is None:
            continue
        last_ns[op.op] = op.closed_ns
        if not outcome:
            failing[op.op] = min(failing.get(op.op, op.begin_ns), op.begin_ns)
            continue
        wait_ns = op.request.wait_ms * 1_000_000 if op.op == "retrieve" else 0
        took_ns = max(0, op.end_ns - op.begin_ns - wait_ns)
        if op.op in failing:
            took_ns = max(took_ns, op.end_ns - failing.pop(op.op))
        longest[op.op] = max(longest.get(op.op, 0), took_ns)
    for kind, since_ns in failing.items():
        longest[kind] = max(longest.get(kind, 0), last_ns[kind] - since_ns)
    return longest


__all__ = ["UNSERVED", "longest_outages", "served", "served_share"]
