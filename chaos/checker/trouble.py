"""When a shard could not be written to, by what its clients saw; when schedulers were hit.

What counts is not what the nemesis did but what a write could not do: a spell of trouble lies
between two acknowledged writes that are far apart, with a write between them that was unanswered
or slow. A client repeats what is refused for the time being, so such a write is slow too. While
acknowledged writes follow each other, the store is well, whatever fault lies on the system, and a
task that is due then is promoted in time.

A scheduler that is stopped does not hinder any write. Its shards are taken over when its
leadership has lapsed, so a fault that can hit one excuses the lateness of so long and no more.
A task that is ready needs no scheduler: its delivery is excused by trouble with writes, and by
faults of the link over which servers hear of ready tasks.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise

from chaos.checker.bounds import Bounds
from chaos.checker.cases import Case, Grouped
from chaos.checker.spans import Spans
from chaos.checker.timeline import MS, Timeline
from chaos.history.operations import CUT_OFF, READS
from chaos.history.reader import History, Op

SLOW_NS = 250 * MS
"""A write that takes longer was hindered."""
APART_NS = 500 * MS
"""Acknowledged writes that follow each other sooner leave no room for trouble that matters."""
LONG_NS = 1_000 * MS
"""Trouble that is shorter costs no leadership and breaks no chain of barriers, unless it is the
end of a master."""
NEAR_NS = 100 * MS
"""How exact a moment of the store's clock is in the controller's time."""

_ONCE = frozenset({"kill", "pause", "cut", "reset"})
"""Faults that a standby answers by taking over, once; of a link as of a process."""
_NO_SCHEDULER = ("api", "client-api", "sentinel", "sentinels")
"""Targets that have no scheduler in them and none behind them."""


@dataclass(frozen=True, slots=True)
class Spell:
    """A time in which promotions may not be possible, and how long afterwards they are caught up.

    Attributes:
        excused_ns: until when a task that was due before may become ready.
    """

    begin_ns: int
    excused_ns: int


class Trouble:
    """The spells of each shard."""

    def __init__(
        self, history: History, grouped: Grouped, timeline: Timeline, bounds: Bounds
    ) -> None:
        self._bounds = bounds
        self._failovers_ns = timeline.failovers_ns
        self._common = self._of_faults(timeline)
        self._of_delivery = self._of_servers(timeline)
        self._of_pauses = {
            topic: self._paused(grouped, topic, history.end_ns) for topic in grouped.pauses
        }
        writes: dict[tuple[str, int], list[Op]] = {}
        anywhere: dict[str, list[Op]] = {}
        for case in grouped.cases.values():
            ops = [op for op in case.all_ops() if op.op not in READS and op.op != "retrieve"]
            if case.entries:
                writes.setdefault((case.topic, _shard(case)), []).extend(ops)
            else:
                # No transition tells which shard it was for.
                anywhere.setdefault(case.topic, []).extend(ops)
        self._spells = {
            shard: self._of_writes([*ops, *anywhere.get(shard[0], ())], history.end_ns)
            for shard, ops in writes.items()
        }

    def excused_ns(self, topic: str, shard: int, due_ns: int, ready_ns: int) -> int:
        """Until when a task that became due then may become ready; 0: without any excuse."""
        spells = self._of(topic, shard)
        return max(
            (
                spell.excused_ns
                for spell in spells
                if spell.begin_ns <= ready_ns + NEAR_NS and spell.excused_ns > due_ns
            ),
            default=0,
        )

    def hinders_delivery(self, topic: str, shard: int) -> Spans:
        """When a task that was ready need not be delivered."""
        spells = [
            *self._of_delivery,
            *self._of_pauses.get(topic, ()),
            *self._spells.get((topic, shard), ()),
        ]
        return Spans((spell.begin_ns, spell.excused_ns) for spell in spells)

    def share(self, topic: str, shard: int, end_ns: int) -> float:
        """The share of a run in which the shard was in trouble, the time to catch up included."""
        spells = sorted(
            (spell.begin_ns, min(spell.excused_ns, end_ns)) for spell in self._of(topic, shard)
        )
        total_ns = reached_ns = 0
        for begin_ns, until_ns in spells:
            total_ns += max(0, until_ns - max(begin_ns, reached_ns))
            reached_ns = max(reached_ns, until_ns)
        return total_ns / end_ns if end_ns else 0.0

    def _of(self, topic: str, shard: int) -> list[Spell]:
        return [
            *self._common,
            *self._of_pauses.get(topic, ()),
            *self._spells.get((topic, shard), ()),
        ]

    def _of_writes(self, ops: list[Op], end_ns: int) -> list[Spell]:
        """Gaps between acknowledged writes in which others were hindered."""
        acknowledged = sorted(op.end_ns for op in ops if _is_quick(op))
        hindered = sorted(
            (op.begin_ns, min(op.closed_ns, end_ns)) for op in ops if _is_hindered(op)
        )
        edges = [0, *acknowledged, end_ns]
        spells = []
        for begin_ns, until_ns in pairwise(edges):
            if until_ns - begin_ns <= APART_NS:
                continue
            at = bisect_left(hindered, (until_ns, 0))
            if any(closed_ns > begin_ns for _, closed_ns in hindered[:at]):
                spells.append(self._spell(begin_ns, until_ns))
        return spells

    def _spell(self, begin_ns: int, end_ns: int) -> Spell:
        replaced = any(begin_ns <= at_ns <= end_ns + LONG_NS for at_ns in self._failovers_ns)
        if end_ns - begin_ns > LONG_NS or replaced:
            return Spell(begin_ns, end_ns + self._bounds.recovery_ms * MS)
        catch_up_ns = end_ns - begin_ns + self._bounds.lateness_ms * MS
        return Spell(begin_ns, end_ns + catch_up_ns)

    def _of_faults(self, timeline: Timeline) -> list[Spell]:
        """Faults that can stop a scheduler, or what it does."""
        takeover_ns = self._bounds.takeover_ms * MS
        recovery_ns = self._bounds.recovery_ms * MS
        spells = []
        for window in timeline.windows:
            if window.kind.startswith("clock"):
                # The store's clock is what lateness is measured by.
                spells.append(Spell(window.begin_ns, window.end_ns + recovery_ns))
            elif window.target in _NO_SCHEDULER:
                continue
            elif window.kind == "stutter" or (
                window.target == "scheduler-store" and window.kind not in _ONCE
            ):
                # A link that is slow or stalled hinders any scheduler that leads, all the time; so
                # does a scheduler, or a store, that runs only now and then.
                spells.append(Spell(window.begin_ns, window.end_ns + takeover_ns))
            else:
                spells += [
                    Spell(at_ns, at_ns + takeover_ns) for at_ns in (window.begin_ns, window.end_ns)
                ]
        return spells

    def _of_servers(self, timeline: Timeline) -> list[Spell]:
        """Faults that can keep servers from hearing of ready tasks, while writes succeed."""
        recovery_ns = self._bounds.recovery_ms * MS
        return [
            Spell(window.begin_ns, window.end_ns + recovery_ns)
            for window in timeline.windows
            if window.target == "api-store"
            or window.kind == "stutter"
            or window.kind.startswith("clock")
        ]

    def _paused(self, grouped: Grouped, topic: str, end_ns: int) -> list[Spell]:
        """When the topic may be paused: nothing of it is promoted or delivered then."""
        late_ns = self._bounds.lateness_ms * MS
        return [
            Spell(begin_ns, until_ns + late_ns)
            for begin_ns, until_ns in grouped.paused(topic, end_ns)
        ]


def _shard(case: Case) -> int:
    return case.entries[0][1].shard


def _is_quick(op: Op) -> bool:
    return op.ok and op.end_ns - op.begin_ns <= SLOW_NS


def _is_hindered(op: Op) -> bool:
    """Unanswered, or slow; a caller that gave up says nothing."""
    if op.error == CUT_OFF:
        return False
    return op.outcome == "info" or op.closed_ns - op.begin_ns > SLOW_NS


__all__ = ["Spell", "Trouble"]
