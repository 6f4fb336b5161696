"""What operators asked of whole topics and of dead tasks, held against what happened.

Each finding is a promise's, as that of the request that does the same to one task:

- G4: what an acknowledged purge, or deletion of a topic or a dead task, has ended is over, as after
  a cancel;
- G5: while a topic is paused none of its tasks is promoted or delivered: it is not time for them;
- G2: what a redrive or purge counts has happened; a topic that nothing has deleted is there;
- G8: what was to change only at one revision changed at that one.

That a redriven task comes back once is G13's count of transitions, and that it does G6's.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from chaos.checker.cases import Case
from chaos.checker.resolve import SLACK_NS
from chaos.checker.trouble import NEAR_NS
from chaos.checker.verdict import Anomaly
from chaos.checker.view import RunView, seconds
from chaos.history.journal import Entry
from chaos.history.reader import Op

MOVED = frozenset({"promote", "lease"})
"""Transitions that a pause keeps from happening."""


def done_while_paused(view: RunView) -> Iterator[Anomaly]:
    """Promotions and leases between an acknowledged pause and the request that ends it."""
    paused = {
        topic: view.grouped.surely_paused(topic, view.history.end_ns, SLACK_NS)
        for topic in view.grouped.pauses
    }
    for case in view.cases:
        for pause, until_ns in paused.get(case.topic, ()):
            said = f"while its topic was paused from {view.at(pause)} to {seconds(until_ns)}"
            witness = next(_moved(view, case, pause.end_ns, until_ns), None)
            if witness is not None:
                moved = f"was {witness[1].op}d at {witness[1].at_ms} ms"
                yield view.of_entries("G5", f"{moved}, {said}", witness)
                break
            delivery = next(
                (
                    each
                    for each in case.deliveries
                    if each.begin_ns > pause.end_ns and each.end_ns < until_ns
                ),
                None,
            )
            if delivery is not None:
                summary = f"was delivered at {view.at(delivery.op)}, {said}"
                yield view.anomaly("G5", summary, case, pause, delivery.op)
                break


def _moved(view: RunView, case: Case, since_ns: int, until_ns: int) -> Iterator[tuple[int, Entry]]:
    for witness in case.entries:
        entry = witness[1]
        if entry.op in MOVED and (
            since_ns + NEAR_NS < view.store_ns(entry.at_ms) < until_ns - NEAR_NS
        ):
            yield witness


def alive_after_its_end(view: RunView) -> Iterator[Anomaly]:
    """Tasks that an acknowledged purge or deletion ended, and that something happened to after."""
    for case in view.cases:
        ends = [op for op in (*view.grouped.purges.get(case.topic, ()), *case.deletes) if op.ok]
        made = {
            op.reply.incarnation: op.end_ns
            for op in case.makers
            if op.ok and (op.op == "run_again" or op.reply.created)
        }
        found = next(
            (
                anomaly
                for end in sorted(ends, key=lambda op: op.end_ns)
                for incarnation, made_ns in made.items()
                if made_ns < end.begin_ns
                and (anomaly := _alive(view, case, incarnation, end)) is not None
            ),
            None,
        )
        if found is not None:
            yield found


def _alive(view: RunView, case: Case, incarnation: int, end: Op) -> Anomaly | None:
    ended = f"was ended by {end.op} at {view.at(end)}"
    for delivery in case.deliveries:
        if delivery.lease.incarnation == incarnation:
            for sighting in delivery.sightings:
                if sighting.begin_ns > end.end_ns:
                    summary = f"{ended}, and delivered at {view.at(sighting)}"
                    return view.anomaly("G4", summary, case, end, sighting)
    for witness in case.entries:
        entry = witness[1]
        if entry.incarnation == incarnation and (view.store_ns(entry.at_ms) > end.end_ns + NEAR_NS):
            summary = f"{ended}, and {entry.op} was done to it at {entry.at_ms} ms"
            return view.of_entries("G4", summary, witness)
    topic = view.final.topics.get(case.topic) if view.final else None
    for state, ids in topic.held.items() if topic else ():
        if ids.get(case.id) == incarnation:
            return view.anomaly("G4", f"{ended}, and is held as {state} at the end", case, end)
    return None


def counted_and_not_done(view: RunView) -> Iterator[Anomaly]:
    """Redrives and purges that count more tasks than the journal has of them at that time."""
    if not view.journal_complete:
        return
    times: dict[tuple[str, str], list[int]] = {}
    for case in view.cases:
        for _, entry in case.entries:
            if entry.op in {"redrive", "purge"}:
                at_ns = view.store_ns(entry.at_ms)
                times.setdefault((entry.topic, entry.op), []).append(at_ns)
    for at in times.values():
        at.sort()
    for op in view.history.ops:
        if op.op not in {"redrive", "purge"} or not op.ok or not view.journaled(op.request.topic):
            continue
        at = times.get((op.request.topic, op.op), [])
        done = bisect_right(at, op.end_ns + NEAR_NS) - bisect_left(at, op.begin_ns - NEAR_NS)
        if done < op.reply.count:
            yield Anomaly(
                "G2",
                f"topic {op.request.topic} counted {op.reply.count} tasks in the {op.op} at "
                f"{view.at(op)}, and the journal has {done} at that time",
                op.request.topic,
                events=(op.end,),
            )


def denied_topics(view: RunView) -> Iterator[Anomaly]:
    """Requests that were answered with "there is no such topic", while there was; one a topic."""
    named: set[str] = set()
    for op in view.history.ops:
        if op.error != "TOPIC_NOT_FOUND" or op.outcome != "fail":
            continue
        for topic in op.request.topics if op.op == "retrieve" else (op.request.topic,):
            if topic not in named and _is_there(view, topic, op):
                named.add(topic)
                yield Anomaly(
                    "G2",
                    f"topic {topic} was there, and {op.op} at {view.at(op)} was answered with "
                    f"TOPIC_NOT_FOUND",
                    topic,
                    events=(op.end,),
                )


def _is_there(view: RunView, topic: str, op: Op) -> bool:
    """Whether a topic was there during all of an operation."""
    made = topic in view.run.topics or any(
        each.ok and each.end_ns < op.begin_ns for each in view.grouped.created.get(topic, ())
    )
    return made and not any(
        each.outcome != "fail" and each.begin_ns < op.end_ns
        for each in view.grouped.deleted.get(topic, ())
    )


def changed_at_another_revision(view: RunView) -> Iterator[Anomaly]:
    """What was to change only if the task had one revision, and had another one."""
    if not view.journal_complete:
        return
    for case in view.cases:
        if not view.journaled(case.topic):
            continue
        for op in (*case.enqueues, *case.reschedules, *case.deletes):
            expected = op.request.expected_revision
            if not op.ok or expected is None or not op.reply.revision:
                continue
            position = next(
                (
                    at
                    for at, (_, entry) in enumerate(case.entries)
                    if entry.revision == op.reply.revision
                ),
                0,
            )
            if op.op == "enqueue" and not op.reply.created:
                continue
            # The end of the task that gives way is part of the same change.
            before = [
                entry
                for _, entry in case.entries[:position]
                if entry.lineage != case.entries[position][1].lineage
            ]
            if before and before[-1].revision != expected:
                summary = (
                    f"was to change at {view.at(op)} if it had revision {expected}, and did so at "
                    f"revision {before[-1].revision}"
                )
                yield view.anomaly("G8", summary, case, op)
                break


__all__ = [
    "alive_after_its_end",
    "changed_at_another_revision",
    "counted_and_not_done",
    "denied_topics",
    "done_while_paused",
]
