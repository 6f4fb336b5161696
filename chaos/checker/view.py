"""The view of a run that a checker is given: grouped by task, with what became of its unknowns."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import msgspec

from chaos.checker.bounds import Bounds
from chaos.checker.cases import Case, Delivery, Grouped
from chaos.checker.store_clock import StoreClock, clock_error_ms
from chaos.checker.timeline import MS, Timeline, timeline
from chaos.checker.trouble import Trouble
from chaos.checker.verdict import Anomaly
from chaos.history.journal import Entry, Journal
from chaos.history.notes import TopicSettings
from chaos.history.operations import (
    RetrySettings,
)
from chaos.history.reader import History, Op
from chaos.history.run_folder import Final

DEFAULT_POLICY = RetrySettings(5, 1_000, 600_000, 2.0, 0.1)
"""What a topic has that names nothing, as the API documents it."""


class RunView:
    """One run, ready to be judged.

    Attributes:
        journal: None: there is none, or it cannot be used; ``final`` likewise.
        journal_alone: there is no history: a production journal, which begins somewhere.
        lineages: tags that the surviving journal holds.
    """

    def __init__(
        self,
        history: History,
        journal: Journal | None,
        final: Final | None,
        bounds: Bounds,
        *,
        journal_alone: bool = False,
    ) -> None:
        self.journal_alone = journal_alone
        self.history = history
        self.journal = journal
        self.final = final
        error_ms = clock_error_ms(history, bounds.clock_error_ms)
        self.bounds = msgspec.structs.replace(bounds, clock_error_ms=error_ms)
        self.run = history.run
        self.grouped = Grouped(history, journal)
        self.timeline: Timeline = timeline(history)
        self.clock = StoreClock(history)
        self.trouble = Trouble(history, self.grouped, self.timeline, self.bounds)
        self.order_breaks: dict[str, list[Anomaly]] | None = None
        self.chain_breaks: dict[str, list[Anomaly]] | None = None
        self.lineages = {entry.lineage for entry in journal.entries} if journal else set()

    @cached_property
    def lost_retrieves(self) -> list[Op]:
        """Retrieves that may have leased a task without a reply that names it."""
        return [op for op in self.grouped.retrieves if op.outcome == "info"]

    @cached_property
    def journal_complete(self) -> bool:
        """Whether it begins with the first task: a stream that was trimmed lacks the oldest.

        The stream says how much it has dropped. Where that is not known, a journal with fewer
        beginnings than the shard counts is taken for trimmed.
        """
        if self.journal is None or self.journal_alone:
            return False
        if self.final is None:
            return True
        trimmed = [self.final.topics[name].trimmed for name in self.final.topics]
        if all(counts is not None for counts in trimmed):
            return not any(count for counts in trimmed for count in counts or ())
        begun: dict[tuple[str, int], int] = {}
        for entry in self.journal.entries:
            if entry.op == "enqueue":
                key = (entry.topic, entry.shard)
                begun[key] = begun.get(key, 0) + 1
        return all(
            begun.get((name, shard), 0) >= counts.enqueued
            for name, topic in self.final.topics.items()
            if self.journaled(name)
            for shard, counts in enumerate(topic.shards)
        )

    @property
    def cases(self) -> Iterable[Case]:
        """Task by task."""
        return self.grouped.cases.values()

    def settings(self, topic: str) -> TopicSettings:
        """As the run made the topic."""
        return self.run.topics.get(topic) or TopicSettings()

    def journaled(self, topic: str) -> bool:
        """Whether the journal holds this topic's transitions."""
        if self.journal is None or topic in self.grouped.created:
            return False
        known = self.run.topics.get(topic)
        return known is None or known.journal

    def policy(self, case: Case, delivery: Delivery | None = None) -> RetrySettings:
        """The retry policy of a task, every field filled: its own, then the topic's.

        The enqueue that made the incarnation decides; where that is not known, the most lenient of
        those that may have.
        """
        incarnation = delivery.lease.incarnation if delivery else 0
        makers = [op for op in case.enqueues if op.may_have_happened]
        mine = [
            op
            for op in makers
            if op.ok and op.reply.created and op.reply.incarnation == incarnation
        ]
        given = [op.request.policy for op in mine or makers]
        topic = self.settings(case.topic).policy
        if case.topic not in self.run.topics and delivery and delivery.lease.policy:
            topic = delivery.lease.policy
        filled = [_fill(policy, topic) for policy in given] or [_fill(None, topic)]
        if len(filled) == 1:
            return filled[0]
        return RetrySettings(
            max(policy.max_attempts or 0 for policy in filled),
            min(policy.initial_backoff_ms or 0 for policy in filled),
            min(policy.max_backoff_ms or 0 for policy in filled),
            min(policy.multiplier or 0.0 for policy in filled),
            min(policy.jitter or 0.0 for policy in filled),
        )

    def store_ns(self, at_ms: int) -> int:
        """The controller's time of a moment of the store's clock."""
        if self.clock.known:
            return self.clock.ns_of(at_ms)
        return (at_ms - self.run.wall_ms) * MS

    # Telling ---------------------------------------------------------------------------------

    def at(self, op: Op) -> str:
        """When an operation was over, and which it is: ``12.041 s (op 812)``."""
        if op.outcome == "info":
            return f"{seconds(op.begin_ns)} (op {op.index}, outcome unknown)"
        return f"{seconds(op.end_ns)} (op {op.end})"

    def anomaly(
        self, promise: str, summary: str, case: Case, *ops: Op, entries: Iterable[int] = ()
    ) -> Anomaly:
        """A broken promise, with its witnesses; says after which failover the last of them was."""
        times = [op.closed_ns for op in ops if op.end >= 0]
        number = self.timeline.failover_number(max(times)) if times else 0
        behind = f", after failover #{number}" if number else ""
        return Anomaly(
            promise,
            f"task {case.name} {summary}{behind}",
            case.topic,
            case.id,
            tuple(sorted({op.end if op.end >= 0 else op.index for op in ops})),
            tuple(entries),
            any(self.lost(op, case) for op in ops),
        )

    def of_entries(self, promise: str, summary: str, *witnesses: tuple[int, Entry]) -> Anomaly:
        """A broken promise that the journal shows."""
        entry = witnesses[-1][1]
        return Anomaly(
            promise,
            f"task {entry.topic}/{entry.id} {summary}",
            entry.topic,
            entry.id,
            entries=tuple(position for position, _ in witnesses),
        )

    def lost(self, op: Op, case: Case) -> bool:
        """Whether its reply came from a lineage that the surviving journal does not hold."""
        if op.reply is None or not self.journaled(case.topic):
            return False
        if op.op == "retrieve":
            tags = [lease.lineage for lease in op.reply.leases if lease.id == case.id]
        else:
            tags = [getattr(op.reply, "lineage", "")]
        return any(tag and tag not in self.lineages for tag in tags)


def _fill(policy: RetrySettings | None, topic: RetrySettings) -> RetrySettings:
    def pick(name: str) -> object:
        for given in (policy, topic, DEFAULT_POLICY):
            value = getattr(given, name) if given is not None else None
            if value is not None:
                return value
        raise AssertionError(name)

    return RetrySettings(*(pick(name) for name in RetrySettings.__struct_fields__))  # type: ignore[arg-type]


def seconds(time_ns: int) -> str:
    """``12.041 s``."""
    return f"{time_ns / 1e9:.3f} s"


__all__ = ["MS", "RunView", "seconds"]
