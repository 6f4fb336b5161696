"""Sets of moments, as intervals that do not overlap: how much of a time they cover."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate

Interval = tuple[int, int]
"""Begin and end, in ns of the controller's clock."""


class Spans:
    """The moments that at least one of the intervals contains; empty and reversed ones are none."""

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        merged: list[Interval] = []
        for begin, end in sorted(each for each in intervals if each[0] < each[1]):
            if merged and begin <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end))
            else:
                merged.append((begin, end))
        self.intervals = merged
        self._begins = [begin for begin, _ in merged]
        self._before = [0, *accumulate(end - begin for begin, end in merged)]

    def covered(self, begin: int, end: int) -> int:
        """How much of an interval they cover."""
        return max(0, self._until(end) - self._until(begin)) if begin < end else 0

    def _until(self, at: int) -> int:
        """How much they cover up to a moment."""
        position = bisect_right(self._begins, at) - 1
        if position < 0:
            return 0
        begin, end = self.intervals[position]
        return self._before[position] + min(at, end) - begin

    def without(self, others: Spans) -> Spans:
        """The moments that the other one does not contain."""
        left: list[Interval] = []
        position = 0
        for begin, end in self.intervals:
            while position < len(others.intervals) and others.intervals[position][1] <= begin:
                position += 1
            since, at = begin, position
            while at < len(others.intervals) and others.intervals[at][0] < end:
                left.append((since, others.intervals[at][0]))
                since = others.intervals[at][1]
                at += 1
            left.append((since, end))
        return Spans(left)


__all__ = ["Interval", "Spans"]
