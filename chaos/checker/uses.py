"""What the clients of a run used, and what came of it: measures for gates.

What was asked for and refused, or had nothing to do, proves nothing: each counts effects.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping

from chaos.checker.cases import Case
from chaos.checker.resolve import SLACK_NS
from chaos.checker.timeline import MS
from chaos.checker.view import RunView
from chaos.history.reader import Op

PAUSED_NS = 500 * MS
"""A pause that is shorter holds too little back."""
AT_ONE_MOMENT = 20
"""Tasks of a topic that are due in the same millisecond, to count as due together."""


def _pauses_that_held_back(view: RunView) -> int:
    """Acknowledged pauses of half a second and more, in which a task became due."""
    due_ns: defaultdict[str, list[int]] = defaultdict(list)
    for case in view.cases:
        for _, entry in case.entries:
            if entry.after == "scheduled":
                due_ns[case.topic].append(view.store_ns(entry.due_ms))
    return sum(
        until_ns - pause.end_ns >= PAUSED_NS
        and any(pause.end_ns < at_ns < until_ns for at_ns in due_ns[topic])
        for topic in view.grouped.pauses
        for pause, until_ns in view.grouped.surely_paused(topic, view.history.end_ns, SLACK_NS)
    )


def _redriven_and_delivered(view: RunView) -> int:
    """Tasks that were leased in the run that a redrive began."""
    return sum(
        entry.op == "redrive"
        and any(
            later.op == "lease" and (later.incarnation, later.run) == (entry.incarnation, entry.run)
            for _, later in case.entries
        )
        for case in view.cases
        for _, entry in case.entries
    )


def _purged(view: RunView) -> int:
    """Tasks that acknowledged purges count."""
    return sum(op.reply.count for ops in view.grouped.purges.values() for op in ops if op.ok)


def _deleted(view: RunView) -> int:
    return sum(op.ok for case in view.cases for op in case.deletes)


def _listed(view: RunView) -> int:
    """Tasks in listings."""
    return sum(len(op.reply.tasks) for op in view.history.ops if op.op == "list" and op.ok)


def _refused(error: str) -> Callable[[RunView], int]:
    return lambda view: sum(op.outcome == "fail" and op.error == error for op in view.history.ops)


def _at_its_revision(view: RunView) -> int:
    """Changes that were to happen only at one revision, and did."""
    return sum(
        op.ok and op.request.expected_revision is not None
        for case in view.cases
        for op in _changes(case)
    )


def _changes(case: Case) -> Iterator[Op]:
    yield from case.enqueues
    yield from case.reschedules
    yield from case.deletes


def _delivered_again(view: RunView) -> int:
    """Ids of which more than one incarnation was delivered."""
    return sum(
        len({delivery.lease.incarnation for delivery in case.deliveries}) > 1 for case in view.cases
    )


def _replaced(view: RunView) -> int:
    """Tasks that gave way to another one before they were delivered."""
    return sum(entry.op == "replace" for case in view.cases for _, entry in case.entries)


def _mixed_batches(view: RunView) -> int:
    """Batches of which some items took effect and others were refused."""
    outcomes: defaultdict[int, set[str]] = defaultdict(set)
    for op in view.history.ops:
        outcomes[op.index].add(op.outcome)
    return sum({"ok", "fail"} <= each for each in outcomes.values())


def _due_together(view: RunView) -> int:
    """Promoted tasks of which many more were due at the same moment."""
    moments = Counter(
        (case.topic, entry.due_ms)
        for case in view.cases
        for _, entry in case.entries
        if entry.op == "promote"
    )
    return sum(count for count in moments.values() if count >= AT_ONE_MOMENT)


def _topics_deleted(view: RunView) -> int:
    """Topics with tasks, of which later requests were answered that they do not exist."""
    return sum(
        any(
            op.error == "TOPIC_NOT_FOUND" and op.begin_ns > deleted[0].end_ns
            for op in view.history.ops
            if op.op != "retrieve" and op.request.topic == topic
        )
        and any(case.topic == topic and any(op.ok for op in case.enqueues) for case in view.cases)
        for topic, deleted in view.grouped.deleted.items()
        if deleted[0].ok
    )


def _extended(view: RunView) -> int:
    """Leases that were extended and then acknowledged."""
    return sum(
        any(op.ok for op in case.with_token(token, "extend"))
        and any(op.ok for op in case.with_token(token, "ack"))
        for case in view.cases
        for token in case.settles
    )


USES: Mapping[str, Callable[[RunView], int]] = {
    "pauses that held tasks back": _pauses_that_held_back,
    "tasks purged": _purged,
    "tasks redriven and delivered": _redriven_and_delivered,
    "dead tasks deleted": _deleted,
    "tasks listed": _listed,
    "topics deleted": _topics_deleted,
    "tasks replaced": _replaced,
    "ids delivered again": _delivered_again,
    "contents refused for their id": _refused("TASK_ID_CONFLICT"),
    "changes at their revision": _at_its_revision,
    "changes refused for their revision": _refused("REVISION_MISMATCH"),
    "batches with mixed results": _mixed_batches,
    "tasks due together": _due_together,
    "leases extended and acked": _extended,
}
"""By the name of the gate."""

__all__ = ["USES"]
