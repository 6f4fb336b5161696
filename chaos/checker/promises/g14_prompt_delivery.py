"""G14 prompt delivery: a task that is ready, with a worker waiting for it, is delivered soon.

By the journal a task is ready from the moment at which it became so until a lease, a cancel or
another transition ends that. Workers wait for tasks of a topic while a Retrieve of theirs does, or
a stream of theirs has credit. What counts is how long both are true at once, trouble aside
(chaos/checker/trouble.py): one call that comes back empty proves little, and a task that several
calls in a row have missed has been forgotten.

A Retrieve that comes back empty has waited for as long as it was to wait. One that brings tasks,
and a stream between its replies, may just have been served with others that were before this one:
that counts only from when it took longer than the bound. A Retrieve that was answered late, or not
at all, may have waited at a server that was stopped: it counts only where there was no fault. A
stream has no replies while there is nothing to deliver, so a server that is stopped cannot be
distinguished from one that has nothing: streams do not count around faults of servers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from chaos.checker.cases import Case
from chaos.checker.promises.g06_bounded_lateness import quantile
from chaos.checker.spans import Interval, Spans
from chaos.checker.trouble import SLOW_NS
from chaos.checker.verdict import Found
from chaos.checker.view import MS, RunView
from chaos.history.journal import Entry
from chaos.history.operations import CUT_OFF
from chaos.history.reader import Note, Op

WORST = 10
"""How many of the tasks that waited too long are listed."""
_SERVERS = ("api", "client-api", "api-store")
"""Targets of faults that stop a server, or what it sends."""
_STREAM = "/"
"""In the request_id of a reply of a stream, before its number."""


class Wait(NamedTuple):
    """A time in which a task was ready.

    Attributes:
        asked_ms: for how much of it a worker was waiting.
        counted_ms: for how much of that there was no trouble.
    """

    asked_ms: float
    counted_ms: float
    case: Case
    witnesses: tuple[tuple[int, Entry], ...]


def check(view: RunView) -> Found:
    """Every time in which a task was ready, against the bound."""
    found = Found()
    bound_ms = view.bounds.lateness_ms
    if not view.clock.known:
        if _may_be_late(view):
            found.unknown.append("no reply names the store's clock: its times cannot be compared")
        return found
    waits = list(_waits(view))
    found.looked_at = len(waits)
    counted = sorted(wait.counted_ms for wait in waits if wait.counted_ms)
    found.figures = {
        "ready while a worker waited (ms)": {
            "tasks": len(counted),
            "p50": quantile(counted, 0.5),
            "p99": quantile(counted, 0.99),
            "max": quantile(counted, 1.0),
        },
        "ready and excused (ms)": {
            "tasks": sum(wait.asked_ms > wait.counted_ms for wait in waits),
            "max": round(max((wait.asked_ms for wait in waits), default=0.0), 1),
        },
        "bound (ms)": bound_ms,
    }
    late = [wait for wait in waits if wait.counted_ms > bound_ms]
    late.sort(key=lambda wait: -wait.counted_ms)
    for wait in late[:WORST]:
        entry = wait.witnesses[0][1]
        ended = f"until it was {wait.witnesses[1][1].op}d" if wait.witnesses[1:] else "to the end"
        summary = (
            f"was ready from {entry.at_ms} ms {ended}, and for {wait.counted_ms:.0f} ms of that a "
            f"worker waited for it; the bound is {bound_ms} ms, {len(late)} were beyond it"
        )
        found.anomalies.append(view.of_entries("G14", summary, *wait.witnesses))
    return found


def _may_be_late(view: RunView) -> bool:
    """Whether any task was ready for longer than the bound, by the store's clock alone."""
    for case in view.cases:
        for position, (_, entry) in enumerate(case.entries):
            if entry.after == "ready":
                after = case.entries[position + 1 : position + 2]
                if not after or after[0][1].at_ms - entry.at_ms > view.bounds.lateness_ms:
                    return True
    return False


def _waits(view: RunView) -> Iterator[Wait]:
    asked: dict[str, Spans] = {}
    counted: dict[tuple[str, int], Spans] = {}
    for case in view.cases:
        topic = case.topic
        for position, witness in enumerate(case.entries):
            entry = witness[1]
            if entry.after != "ready":
                continue
            if topic not in asked:
                asked[topic] = Spans(_asking(view, topic))
            shard = (topic, entry.shard)
            if shard not in counted:
                counted[shard] = asked[topic].without(view.trouble.hinders_delivery(*shard))
            witnesses = tuple(case.entries[position : position + 2])
            begin_ns = view.store_ns(entry.at_ms)
            end_ns = view.store_ns(witnesses[1][1].at_ms) if witnesses[1:] else view.history.end_ns
            yield Wait(
                asked[topic].covered(begin_ns, end_ns) / MS,
                counted[shard].covered(begin_ns, end_ns) / MS,
                case,
                witnesses,
            )


# Who waits ------------------------------------------------------------------------------------


def _asking(view: RunView, topic: str) -> Iterator[Interval]:
    """When a worker waited for a task of the topic."""
    polls = [
        op
        for op in view.grouped.retrieves
        if topic in op.request.topics and _STREAM not in op.request.request_id
    ]
    around = Spans((w.begin_ns, w.end_ns + _after_ns(view)) for w in view.timeline.windows)
    for op in polls:
        interval = _waited(view, op)
        prompt = op.ok and op.end_ns - op.begin_ns <= op.request.wait_ms * MS + SLOW_NS
        if interval is not None and (prompt or not around.covered(op.begin_ns, op.closed_ns)):
            yield interval
    yield from (
        Spans(_streams(view, topic))
        .without(
            Spans(
                (window.begin_ns, window.end_ns + _after_ns(view))
                for window in view.timeline.windows
                if window.target in _SERVERS
            )
        )
        .intervals
    )


def _after_ns(view: RunView) -> int:
    """How long after a fault a server may still be catching up."""
    return view.bounds.recovery_ms * MS


def _waited(view: RunView, op: Op) -> Interval | None:
    """When a Retrieve waited; None: it was refused, or its caller gave up."""
    if op.outcome == "fail" or op.error == CUT_OFF:
        return None
    until_ns = min(op.closed_ns, op.begin_ns + op.request.wait_ms * MS)
    if not op.ok or not op.reply.leases:
        return op.begin_ns, until_ns
    return op.begin_ns + _served_ns(view), min(until_ns, _granted_ns(view, op))


def _served_ns(view: RunView) -> int:
    """How long a request may take that other tasks are given to."""
    return view.bounds.lateness_ms * MS


def _granted_ns(view: RunView, op: Op) -> int:
    """When a Retrieve leased what it reports."""
    return min(
        view.store_ns(
            lease.expire_ms - (op.request.lease_ms or view.settings(lease.topic).lease_ms)
        )
        for lease in op.reply.leases
    )


def _streams(view: RunView, topic: str) -> Iterator[Interval]:
    """When a stream had credit and got nothing for it."""
    replies: dict[str, list[Op]] = {}
    for op in view.grouped.retrieves:
        stem, is_stream, _ = op.request.request_id.partition(_STREAM)
        if is_stream and topic in op.request.topics:
            replies.setdefault(stem, [])
            if op.ok and op.reply.leases:
                replies[stem].append(op)
    open_credit: dict[str, list[Note]] = {stem: [] for stem in replies}
    for note in view.history.notes:
        if note.op == "credit" and note.process in open_credit:
            open_credit[note.process].append(note)
    for stem, notes in open_credit.items():
        yield from _gaps(view, notes, replies[stem])


def _gaps(view: RunView, notes: list[Note], replies: list[Op]) -> Iterator[Interval]:
    """From where a stream got credit, or a reply, to where it got the next one or had none."""
    events: list[tuple[int, int, bool | None]] = [
        *((note.time_ns, note.time_ns, note.value.tasks > 0) for note in notes),
        # A reply that was read late was leased when its leases began.
        *((op.end_ns, min(op.end_ns, _granted_ns(view, op)), None) for op in replies),
        (view.history.end_ns, view.history.end_ns, None),
    ]
    events.sort(key=lambda event: event[0])
    asks = False
    for (since_ns, _, begins), (_, until_ns, _) in pairwise(events):
        asks = asks if begins is None else begins
        if asks:
            yield since_ns + _served_ns(view), until_ns
