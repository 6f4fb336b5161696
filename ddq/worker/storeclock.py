"""When a lease ends in this process's time, though its reply may have come late."""

from __future__ import annotations

from collections import deque

from ddq.client import Lease

WINDOW_S = 120.0


class StoreClock:
    """Estimates the store's clock from the times that replies carry.

    A process that was stopped for 30 s finds a reply in its socket that says "30 s left", when
    nothing is. The age of a reply shows in the distance between the store's time in it and the
    local monotonic time when it was read: that is the true distance plus the delay, so the least
    one seen lately is the best guess, and what a reply has more than that is its delay.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def local_expiry_s(self, lease: Lease, now_s: float) -> float:
        """The end of a lease in local monotonic time; ``now_s`` is when its reply was read."""
        remaining_s = lease.remaining.total_seconds()
        store_time = lease.receipt.store_time
        if store_time is None:
            return now_s + remaining_s
        distance_s = now_s - store_time.timestamp()
        # Older ones are forgotten: the two clocks drift.
        while self._seen and self._seen[0][0] < now_s - WINDOW_S:
            self._seen.popleft()
        # Kept in rising order of distance, so the first is the least.
        while self._seen and self._seen[-1][1] >= distance_s:
            self._seen.pop()
        self._seen.append((now_s, distance_s))
        delay_s = distance_s - self._seen[0][1]
        return now_s - delay_s + remaining_s
