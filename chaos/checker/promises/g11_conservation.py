"""G11 conservation: what was enqueued is somewhere, at every moment.

The equation in each count of a shard that a client received, and after the drain the counters
against what is really held and against the surviving journal. What clients were promised is not
weighed here: across a failover in FAST acknowledged tasks may go, and yet everything adds up.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from chaos.checker.verdict import Anomaly, Found
from chaos.checker.view import RunView, seconds
from chaos.history.operations import (
    HELD,
    Counts,
)
from chaos.history.run_folder import FinalTopic

AFTER = {"succeeded", "cancelled", "purged"}


def check(view: RunView) -> Found:
    """Every count."""
    found = Found()
    final = view.final
    assert final is not None
    for op in view.grouped.stats:
        for shard, counts in enumerate(op.reply.shards if op.ok else ()):
            found.looked_at += 1
            if counts.accounted != counts.enqueued:
                summary = f"{_equation(op.request.topic, shard, counts)} at {seconds(op.end_ns)}"
                found.anomalies.append(
                    Anomaly("G11", f"{summary} (op {op.end})", op.request.topic, events=(op.end,))
                )
    moved = _moved(view)
    if not final.drained:
        found.unknown.append("the drain did not finish")
    for name, topic in final.topics.items():
        for shard, counts in enumerate(topic.shards):
            found.looked_at += 1
            if counts.accounted != counts.enqueued:
                summary = f"{_equation(name, shard, counts)} after the drain"
                found.anomalies.append(Anomaly("G11", summary, name))
        _held(found, name, topic)
        if view.journaled(name) and view.journal_complete:
            _journal(found, name, topic, moved[name])
    return found


def _equation(topic: str, shard: int, counts: Counts) -> str:
    enqueued = f"topic {topic} shard {shard} has enqueued {counts.enqueued}"
    return f"{enqueued} and accounts for {counts.accounted}"


def _held(found: Found, name: str, topic: FinalTopic) -> None:
    for state in HELD:
        counted = sum(getattr(counts, state) for counts in topic.shards)
        held = len(topic.held.get(state, {}))
        if counted != held:
            summary = f"topic {name} counts {counted} {state} after the drain, and holds {held}"
            found.anomalies.append(Anomaly("G11", summary, name))


def _moved(view: RunView) -> defaultdict[str, Counter[str]]:
    """By topic, what the journal holds: each beginning, and each end, is one transition."""
    moved: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for entry in view.journal.entries if view.journal else ():
        if entry.op == "enqueue":
            moved[entry.topic]["enqueued"] += 1
        elif entry.after in AFTER and entry.before != entry.after:
            moved[entry.topic][entry.after] += 1
    return moved


def _journal(found: Found, name: str, topic: FinalTopic, moved: Counter[str]) -> None:
    for field in ("enqueued", *sorted(AFTER)):
        counted = sum(getattr(counts, field) for counts in topic.shards)
        if counted != moved[field]:
            summary = (
                f"topic {name} counts {counted} {field} after the drain, and its journal "
                f"{moved[field]}"
            )
            found.anomalies.append(Anomaly("G11", summary, name))
