"""The store's clock in the controller's time, learnt from replies.

Each reply was made at ``store_ms`` at some moment between its request and its arrival. That gives
a pair of moments, half the request's duration exact; a time between two pairs is reckoned from the
nearer one. No pair is trusted for long: after a failover the pairs are another node's.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator

from chaos.history.reader import History, Op

MS = 1_000_000
APART_MS = 10
LONG_NS = 100 * MS
"""Requests that took longer say too little."""


ERROR_MARGIN_MS = 10
"""The store's clock is read in whole ms, and the controller's wall clock once, at the start."""


def clock_error_ms(history: History, most_ms: int) -> int:
    """How far apart the errors of the store's clock were in this run, as replies show.

    A reply was made between its request and its arrival. What it says beyond that is an error of
    one of the clocks. A time from one moment to another is wrong by the difference of two errors:
    where the clock was behind at first and then ahead, by their sum. The judge allows for no more
    than the greatest that there was.

    Args:
        most_ms: what is allowed for at most.
    """
    wall_ms = history.run.wall_ms
    if not wall_ms:
        return most_ms
    behind_ms = ahead_ms = 0.0
    for op in history.ops:
        for store_ms in _store_times_ms(op):
            ahead_ms = max(ahead_ms, store_ms - wall_ms - op.end_ns / MS)
            if op.op != "retrieve":
                # A lease that is reported again was granted before its request.
                behind_ms = max(behind_ms, wall_ms + op.begin_ns / MS - store_ms)
    return min(most_ms, math.ceil(behind_ms + ahead_ms) + ERROR_MARGIN_MS)


def _store_times_ms(op: Op) -> Iterator[int]:
    """The moments of the store's clock that a reply names as its own."""
    if not op.ok:
        return
    for said in (op.reply, *getattr(op.reply, "leases", ())):
        if store_ms := getattr(said, "store_ms", 0):
            yield store_ms


class StoreClock:
    """Converts; exact to about 50 ms where requests were being answered."""

    def __init__(self, history: History) -> None:
        found: dict[int, tuple[int, int, int]] = {}
        for op in history.ops:
            if op.outcome != "ok" or op.op in {"retrieve", "get"}:
                continue
            took_ns = op.end_ns - op.begin_ns
            store_ms = getattr(op.reply, "store_ms", 0)
            if took_ns > LONG_NS or not store_ms:
                continue
            # The quickest of those at the same time says most.
            best = found.get(store_ms // APART_MS)
            if best is None or took_ns < best[0]:
                found[store_ms // APART_MS] = (took_ns, store_ms, op.begin_ns + took_ns // 2)
        pairs = sorted(found.values(), key=lambda pair: pair[1])
        self._store_ms = [pair[1] for pair in pairs]
        self._ns = [pair[2] for pair in pairs]

    @property
    def known(self) -> bool:
        """Whether anything was learnt."""
        return bool(self._store_ms)

    def ns_of(self, at_ms: int) -> int:
        """The controller's time of a moment of the store's clock."""
        at = bisect_left(self._store_ms, at_ms)
        if at == len(self._store_ms) or (
            at > 0 and at_ms - self._store_ms[at - 1] < self._store_ms[at] - at_ms
        ):
            at -= 1
        return self._ns[at] + (at_ms - self._store_ms[at]) * MS


__all__ = ["StoreClock", "clock_error_ms"]
