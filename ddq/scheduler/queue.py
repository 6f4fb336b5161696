"""Which shard is visited next: bounded visits, in the order of their moments, for each store node.

A visit is short: a batch or two. A shard that has more goes to the end of the line of backlogs, and
that line has few places. So a shard on which something has just become due waits for no backlog of
another shard, however long that is.

Each kind of visit has places of its own, and so has each store node: neither housekeeping nor a
node that hangs takes a place from what is due elsewhere.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Generic, Protocol, TypeVar

_NEVER_S = float("inf")


class Kind(IntEnum):
    """What a visit is for; of several that wait for one shard, the first one here goes first."""

    DUE = 0
    """Its first batch, since something has become due."""
    SCAN = 1
    """A look at a shard of which a hint may have been lost."""
    COLLECT = 2
    """A batch of tombstones and request records to remove, and a step of an upgrade."""
    BACKLOG = 3
    """A further batch of what is due."""


PLACES: dict[Kind, int] = {Kind.DUE: 16, Kind.SCAN: 4, Kind.COLLECT: 1, Kind.BACKLOG: 2}
"""Visits of a kind that run at the same time on one store node.

A node runs one script after the other, and a batch of 256 promotions takes it about 10 ms. What has
just become due waits for the scripts that are there already, so the product of the two is bounded.
With 16 places for scans a task was 0.57 s late while 10,000 shards were looked at, with 4 of them
0.05 s (a machine of 2 cores under a load of 10).
"""
STEP_MAX_COUNT = 256
"""Timers that one call of ``take`` looks at."""
_COMPACT_MIN_COUNT = 1_024


@dataclass(eq=False, slots=True)
class Turn:
    """A shard's place in the queue.

    Attributes:
        moments_s: when the next visit of each kind is due.
        waiting: kinds for which it stands in a line.
        missed: kinds that became due while it was being visited.
        place: where its visit is counted; None while there is none.
        gone: it is to be visited no more.
    """

    moments_s: list[float] = field(default_factory=lambda: [_NEVER_S] * len(Kind))
    waiting: set[Kind] = field(default_factory=set)
    missed: set[Kind] = field(default_factory=set)
    place: tuple[_Lines, Kind] | None = None
    gone: bool = False


class HasTurn(Protocol):
    """What can be visited."""

    @property
    def turn(self) -> Turn:
        """Its place in the queue."""


S = TypeVar("S", bound=HasTurn)


class _Lines:
    """The shards of one store node that wait for a visit, and how many are being visited."""

    def __init__(self) -> None:
        self.waiting: dict[Kind, list[tuple[float, int, Any]]] = {kind: [] for kind in Kind}
        self.running: dict[Kind, int] = dict.fromkeys(Kind, 0)


class VisitQueue(Generic[S]):
    """The queue of visits.

    Args:
        node_of: the store node of a shard as far as it is known; shards of one node share places.
    """

    def __init__(self, node_of: Callable[[S], Hashable]) -> None:
        self._node_of = node_of
        self._timers: list[tuple[float, int, S, Kind]] = []
        self._lines: dict[Hashable, _Lines] = {}
        self._order = itertools.count()
        self._compact_count = _COMPACT_MIN_COUNT

    def __len__(self) -> int:
        """Timers, also those that an earlier one of their shard has replaced."""
        return len(self._timers)

    def at(self, shard: S, kind: Kind, moment_s: float) -> None:
        """The shard is visited then, or as soon as there is a place; an earlier moment wins."""
        turn = shard.turn
        if turn.gone or moment_s >= turn.moments_s[kind]:
            return
        turn.moments_s[kind] = moment_s
        if kind in turn.waiting:
            # It overtakes those whose moment is later.
            self._enter(shard, kind)
        else:
            heapq.heappush(self._timers, (moment_s, next(self._order), shard, kind))
            if len(self._timers) > self._compact_count:
                self._compact()

    def _compact(self) -> None:
        """Drops timers that were replaced: the moment of one may be years ahead."""
        kept: dict[tuple[S, Kind], tuple[float, int, S, Kind]] = {}
        for timer in self._timers:
            at_s, _, shard, kind = timer
            if not shard.turn.gone and at_s == shard.turn.moments_s[kind]:
                kept.setdefault((shard, kind), timer)
        self._timers = list(kept.values())
        heapq.heapify(self._timers)
        self._compact_count = max(_COMPACT_MIN_COUNT, 2 * len(self._timers))

    def next_s(self) -> float:
        """When the next timer is due, if no visit ends before; infinity if there is none."""
        return self._timers[0][0] if self._timers else _NEVER_S

    def take(self, now_s: float) -> list[tuple[S, Kind]]:
        """The visits that begin now. Each has to be ended with ``done``."""
        for _ in range(STEP_MAX_COUNT):
            if not self._timers or self._timers[0][0] > now_s:
                break
            at_s, _, shard, kind = heapq.heappop(self._timers)
            self._ring(shard, kind, at_s)
        taken: list[tuple[S, Kind]] = []
        for lines in self._lines.values():
            for kind in Kind:
                self._start(lines, kind, taken)
        return taken

    def _ring(self, shard: S, kind: Kind, at_s: float) -> None:
        turn = shard.turn
        if turn.gone or kind in turn.waiting or at_s != turn.moments_s[kind]:
            return
        if kind is Kind.DUE and (Kind.BACKLOG in turn.waiting or Kind.BACKLOG in turn.missed):
            # The visit for the backlog looks at everything that is due, in its turn.
            turn.moments_s[kind] = _NEVER_S
        elif turn.place is not None:
            turn.missed.add(kind)
        else:
            self._enter(shard, kind)

    def _enter(self, shard: S, kind: Kind) -> None:
        node = self._node_of(shard)
        lines = self._lines.get(node)
        if lines is None:
            lines = self._lines[node] = _Lines()
        entry = (shard.turn.moments_s[kind], next(self._order), shard)
        heapq.heappush(lines.waiting[kind], entry)
        shard.turn.waiting.add(kind)

    @staticmethod
    def _start(lines: _Lines, kind: Kind, taken: list[tuple[S, Kind]]) -> None:
        line = lines.waiting[kind]
        while line and lines.running[kind] < PLACES[kind]:
            _, _, shard = heapq.heappop(line)
            turn = shard.turn
            if turn.gone or kind not in turn.waiting:
                continue
            turn.waiting.discard(kind)
            if turn.place is not None:
                turn.missed.add(kind)
                continue
            turn.place = lines, kind
            turn.moments_s[kind] = _NEVER_S
            if kind is Kind.BACKLOG:
                # What a hint said until now this visit sees by itself.
                turn.moments_s[Kind.DUE] = _NEVER_S
            lines.running[kind] += 1
            taken.append((shard, kind))

    def done(self, shard: S) -> None:
        """The shard's visit has ended."""
        turn = shard.turn
        assert turn.place is not None
        lines, kind = turn.place
        turn.place = None
        lines.running[kind] -= 1
        for missed in sorted(turn.missed):
            if turn.moments_s[missed] < _NEVER_S:
                self._enter(shard, missed)
        turn.missed.clear()

    @staticmethod
    def forget(shard: S) -> None:
        """The shard is gone: no visit begins any more."""
        shard.turn.gone = True
