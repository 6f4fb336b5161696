"""By locality each task is judged by itself: a history, grouped by task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from chaos.history.journal import Entry, Journal
from chaos.history.operations import (
    Get,
    Lease,
)
from chaos.history.reader import History, Op

Key = tuple[str, str]
"""Topic and id."""


class Delivery:
    """One lease of one task. A Retrieve that is repeated tells of the same one again.

    Attributes:
        lease: as the first reply gave it.
        op: the Retrieve that first returned it.
        begin_ns: no lease of it can have happened before: when a Retrieve with this request_id
            was first sent.
        end_ns: when it was first returned.
        at_ms: when it happened by the store's clock, at the latest, as far as replies tell: a
            repeat is answered later than the lease was made, but its expiry is the first one's.
        early_ms: the same, at the earliest: repeats may have asked for leases of other lengths.
        lease_ms: the shortest that a Retrieve with this request_id asked for; None: not known.
        sightings: every Retrieve that returned it.
    """

    __slots__ = (
        "at_ms",
        "begin_ns",
        "early_ms",
        "end_ns",
        "lease",
        "lease_ms",
        "op",
        "sightings",
    )

    def __init__(self, lease: Lease, op: Op, begin_ns: int) -> None:
        self.lease = lease
        self.op = op
        self.begin_ns = begin_ns
        self.end_ns = op.end_ns
        self.sightings = [op]
        self.at_ms = lease.store_ms
        self.early_ms = 0
        self.lease_ms: int | None = None

    def granted(self, spans_ms: list[int | None]) -> None:
        """Takes in how long a lease was asked for: so long before its expiry it was made."""
        known = [span_ms for span_ms in spans_ms if span_ms is not None]
        if len(known) == len(spans_ms):
            self.lease_ms = min(known)
            self.at_ms = min(self.at_ms, self.lease.expire_ms - min(known))
            self.early_ms = min(self.at_ms, self.lease.expire_ms - max(known))

    @property
    def order(self) -> tuple[int, int]:
        """By revision; by the controller's clock where two have the same."""
        return (self.lease.revision, self.end_ns)


class Case:
    """All that is known of one task: operations in the order of their beginning, one list a kind.

    Attributes:
        settles: acks, run_agains, nacks, extends, releases and snoozes by token.
        entries: its part of the journal: (position in the file, entry), in order.
    """

    __slots__ = (
        "acks",
        "cancels",
        "deletes",
        "deliveries",
        "enqueues",
        "entries",
        "extends",
        "gets",
        "id",
        "nacks",
        "redrives",
        "releases",
        "reschedules",
        "run_agains",
        "settles",
        "snoozes",
        "tokens",
        "topic",
    )

    def __init__(self, topic: str, task_id: str) -> None:
        self.topic = topic
        self.id = task_id
        # Most tasks have few kinds of operations, and a run has many tasks: an empty tuple costs
        # nothing.
        self.enqueues: Sequence[Op] = ()
        self.deliveries: list[Delivery] = []
        self.acks: Sequence[Op] = ()
        self.run_agains: Sequence[Op] = ()
        self.nacks: Sequence[Op] = ()
        self.extends: Sequence[Op] = ()
        self.releases: Sequence[Op] = ()
        self.snoozes: Sequence[Op] = ()
        self.cancels: Sequence[Op] = ()
        self.reschedules: Sequence[Op] = ()
        self.gets: Sequence[Op] = ()
        self.redrives: Sequence[Op] = ()
        self.deletes: Sequence[Op] = ()
        self.settles: dict[str, list[Op]] = {}
        self.tokens: dict[str, Delivery] = {}
        self.entries: list[tuple[int, Entry]] = []

    def add(self, kind: str, op: Op) -> None:
        """Adds an operation to the list of its kind."""
        ops = getattr(self, kind)
        if ops:
            ops.append(op)
        else:
            setattr(self, kind, [op])

    @property
    def name(self) -> str:
        """As people write it."""
        return f"{self.topic}/{self.id}"

    def all_ops(self) -> Iterator[Op]:
        """Every operation on this task; a Retrieve as often as it returned it."""
        yield from self.enqueues
        yield from self.reschedules
        yield from self.cancels
        for delivery in self.deliveries:
            yield from delivery.sightings
        yield from self.acks
        yield from self.run_agains
        yield from self.nacks
        yield from self.extends
        yield from self.releases
        yield from self.snoozes
        yield from self.gets
        yield from self.deletes

    @property
    def makers(self) -> list[Op]:
        """What makes an incarnation: an enqueue, or a run that is followed by another."""
        return [*self.enqueues, *self.run_agains]

    def payload_of(self, maker: Op) -> str | None:
        """The payload that such an operation sent, or kept; None: not known."""
        if maker.request.payload is not None or maker.op == "enqueue":
            return str(maker.request.payload)
        delivery = self.tokens.get(maker.request.token)
        return delivery.lease.payload if delivery else None

    def next_runs(self) -> set[int]:
        """Incarnations that the journal has as next runs: made by the call that acked."""
        return {
            after.incarnation
            for (_, before), (_, after) in pairwise(self.entries)
            if before.op == "ack" and after.op == "enqueue" and before.lineage == after.lineage
        }

    def with_token(self, token: str, *kinds: str) -> list[Op]:
        """Operations that brought this token, of these kinds."""
        return [op for op in self.settles.get(token, ()) if op.op in kinds]


class Grouped:
    """A history by task.

    Attributes:
        retrieves: all of them: an empty or unknown one belongs to no task.
        purges, pauses, stats: operations on whole topics; pauses with what ends them.
        redrives_all: redrives without ids.
        created, deleted: requests that made or deleted a topic during the run. A deletion is a
            purge too.
        granted_to: token → the Retrieve whose reply was the first to report it.
    """

    def __init__(self, history: History, journal: Journal | None) -> None:
        self.cases: dict[Key, Case] = {}
        self.granted_to: dict[str, Op] = {}
        self.retrieves: list[Op] = []
        self.purges: dict[str, list[Op]] = {}
        self.redrives_all: dict[str, list[Op]] = {}
        self.created: dict[str, list[Op]] = {}
        self.deleted: dict[str, list[Op]] = {}
        self.stats: list[Op] = []
        self.pauses: dict[str, list[Op]] = {}
        began: dict[str, int] = {}
        for op in history.ops:
            _PLACE[op.op](self, op, began)
        self._repeats = self._repeated()
        self._asked = {
            request_id: [op.request.lease_ms for op in ops]
            for request_id, ops in self._repeats.items()
        }
        for case in self.cases.values():
            for delivery in case.deliveries:
                request = delivery.op.request
                delivery.granted(self._asked.get(request.request_id) or [request.lease_ms])
            if len(case.deliveries) > 1:
                case.deliveries.sort(key=lambda delivery: delivery.order)
        for position, entry in enumerate(journal.entries if journal else ()):
            self.case(entry.topic, entry.id).entries.append((position, entry))

    def _repeated(self) -> dict[str, list[Op]]:
        """Retrieves that were repeated, by request_id."""
        same: dict[str, list[Op]] = {}
        for op in self.retrieves:
            if op.request.request_id:
                same.setdefault(op.request.request_id, []).append(op)
        return {request_id: ops for request_id, ops in same.items() if len(ops) > 1}

    def asked_ms(self, op: Op, default_ms: int) -> set[int]:
        """How long a lease was asked for, by a Retrieve or another one that it repeats."""
        spans_ms = self._asked.get(op.request.request_id) or [op.request.lease_ms]
        return {span_ms or default_ms for span_ms in spans_ms}

    def asked_count(self, op: Op) -> int:
        """How many tasks were asked for, by a Retrieve or another one that it repeats."""
        same = self._repeats.get(op.request.request_id, (op,))
        return max(int(each.request.max_tasks) for each in same)

    def paused(self, topic: str, end_ns: int) -> list[tuple[int, int]]:
        """When the topic may have been paused."""
        spells = []
        begun_ns: int | None = None
        for op in self.pauses.get(topic, ()):
            if not op.may_have_happened:
                continue
            if op.op == "pause":
                begun_ns = op.begin_ns if begun_ns is None else begun_ns
            elif begun_ns is not None and op.ok:
                spells.append((begun_ns, op.end_ns))
                begun_ns = None
        return spells if begun_ns is None else [*spells, (begun_ns, end_ns)]

    def surely_paused(self, topic: str, end_ns: int, slack_ns: int) -> list[tuple[Op, int]]:
        """Acknowledged pauses, each with the moment until which no request can have ended it.

        Args:
            slack_ns: how long after its caller has given up a request may still take effect.
        """
        ops = self.pauses.get(topic, ())
        resumes = [op for op in ops if op.op == "resume" and op.outcome != "fail"]
        held = []
        for pause in ops:
            if pause.op != "pause" or not pause.ok:
                continue
            until_ns = min(
                (
                    max(op.begin_ns, pause.end_ns)
                    for op in resumes
                    if (op.end_ns if op.ok else op.closed_ns + slack_ns) > pause.begin_ns
                ),
                default=end_ns,
            )
            if until_ns > pause.end_ns:
                held.append((pause, until_ns))
        return held

    def case(self, topic: str, task_id: str) -> Case:
        """The task's case, made if there is none."""
        key = (topic, task_id)
        case = self.cases.get(key)
        if case is None:
            case = self.cases[key] = Case(topic, task_id)
        return case

    def retrieve(self, op: Op, began: dict[str, int]) -> None:
        """A Retrieve: each lease goes to its task, once a token."""
        self.retrieves.append(op)
        request_id = op.request.request_id
        begin_ns = began.setdefault(request_id, op.begin_ns) if request_id else op.begin_ns
        if op.reply is None:
            return
        for lease in op.reply.leases:
            case = self.case(lease.topic, lease.id)
            first = self.granted_to.setdefault(lease.token, op)
            if op.end_ns < first.end_ns:
                self.granted_to[lease.token] = op
            known = case.tokens.get(lease.token)
            if known is None:
                known = case.tokens[lease.token] = Delivery(lease, op, begin_ns)
                case.deliveries.append(known)
            else:
                known.sightings.append(op)
                if op.end_ns < known.end_ns:
                    # Two repeats at once: the first reply counts.
                    known.op, known.lease, known.end_ns = op, lease, op.end_ns

    def settle(self, op: Op, kind: str) -> None:
        """Ack, run_again, nack, extend, release, snooze."""
        case = self.case(op.request.topic, op.request.id)
        case.add(kind, op)
        case.settles.setdefault(op.request.token, []).append(op)

    def listing(self, op: Op) -> None:
        """A page of tasks is a look at each of them, at some moment of the request."""
        for seen in op.reply.tasks if op.ok else ():
            look = msgspec.structs.replace(
                op, op="get", request=Get(op.request.topic, seen.id), reply=seen
            )
            self.case(op.request.topic, seen.id).add("gets", look)

    def delete_topic(self, op: Op) -> None:
        """The deletion of a topic ends all its tasks."""
        self.deleted.setdefault(op.request.topic, []).append(op)
        self.purges.setdefault(op.request.topic, []).append(op)

    def redrive(self, op: Op) -> None:
        """To the tasks it names, or to the topic."""
        for task_id in op.request.ids:
            self.case(op.request.topic, task_id).add("redrives", op)
        if not op.request.ids:
            self.redrives_all.setdefault(op.request.topic, []).append(op)


def _plain(kind: str) -> Any:
    def deployment(grouped: Grouped, op: Op, _: dict[str, int]) -> None:
        grouped.case(op.request.topic, op.request.id).add(kind, op)

    return deployment


def _settling(kind: str) -> Any:
    return lambda grouped, op, _: grouped.settle(op, kind)


_PLACE: dict[str, Any] = {
    "enqueue": _plain("enqueues"),
    "cancel": _plain("cancels"),
    "reschedule": _plain("reschedules"),
    "get": _plain("gets"),
    "delete_dead": _plain("deletes"),
    "ack": _settling("acks"),
    "run_again": _settling("run_agains"),
    "nack": _settling("nacks"),
    "extend": _settling("extends"),
    "release": _settling("releases"),
    "snooze": _settling("snoozes"),
    "retrieve": Grouped.retrieve,
    "redrive": lambda grouped, op, _: grouped.redrive(op),
    "purge": lambda grouped, op, _: grouped.purges.setdefault(op.request.topic, []).append(op),
    "stats": lambda grouped, op, _: grouped.stats.append(op),
    "pause": lambda grouped, op, _: grouped.pauses.setdefault(op.request.topic, []).append(op),
    "resume": lambda grouped, op, _: grouped.pauses.setdefault(op.request.topic, []).append(op),
    "create_topic": lambda grouped, op, _: grouped.created.setdefault(op.request.topic, []).append(
        op
    ),
    "delete_topic": lambda grouped, op, _: grouped.delete_topic(op),
    "list": lambda grouped, op, _: grouped.listing(op),
}

__all__ = ["Case", "Delivery", "Grouped", "Key"]
