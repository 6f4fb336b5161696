"""An event loop in which nothing happens by itself: time stands until it is moved.

Tasks run in the order in which they became ready, one at a time. There are no threads and no
sockets: what real code waits for comes from the driver.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _NoSelector:
    """Stands for the operating system, which has nothing to report."""

    def select(self, timeout: float | None) -> list[Any]:
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop whose clock is a number. ``time()`` is in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _NoSelector()
        self._now_s = 0.0
        self._clock_resolution = math.ulp(0.0)

    def time(self) -> float:
        """Virtual seconds."""
        return self._now_s

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nothing waits, so nothing needs to be woken."""

    def settle(self) -> None:
        """Runs until every task waits for something."""
        while self._ready:  # type: ignore[attr-defined]
            self.call_soon(self.stop)
            self.run_forever()

    def next_timer_s(self) -> float | None:
        """When the earliest timer rings; None if there is none."""
        timers = self._scheduled  # type: ignore[attr-defined]
        # As the loop itself drops those that were cancelled.
        while timers and timers[0].cancelled():
            heapq.heappop(timers)._scheduled = False
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
        return timers[0].when() if timers else None

    def move_to(self, now_s: float) -> None:
        """Moves the clock forward and runs what that wakes."""
        self._now_s = max(self._now_s, now_s)
        # A timer rings when its moment is reached, and none rings before: were it woken a
        # trifle early, real code would find that nothing is due and wait again, for ever.
        self._clock_resolution = math.ulp(self._now_s)
        self.call_soon(self.stop)
        self.run_forever()
        self.settle()


def run_virtually(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end; time moves on when nothing else can happen.

    Raises:
        AssertionError: it waits for something that never comes.
    """
    loop = VirtualLoop()
    try:
        task = loop.create_task(work)
        loop.settle()
        while not task.done():
            timer_s = loop.next_timer_s()
            assert timer_s is not None, "waits for ever"
            loop.move_to(timer_s)
        loop.run_until_complete(loop.shutdown_asyncgens())
        return task.result()
    finally:
        loop.close()
