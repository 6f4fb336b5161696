"""Threads for handlers that are plain functions."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class DaemonThreads:
    """Runs functions in up to ``count`` threads, which end with the process.

    A ThreadPoolExecutor joins its threads when the interpreter exits: a handler that sleeps for an
    hour would keep a stopped worker's process alive for that hour. The threads are kept between
    functions, so that what a handler stores per thread (a database connection, for example) is
    found again.

    Args:
        count: threads at most; functions beyond that wait.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0
        self._busy = 0

    def submit(self, function: Callable[[], None]) -> None:
        """Runs ``function``, which may not raise, in one of the threads."""
        with self._lock:
            self._busy += 1
            if self._busy > self._started and self._started < self._count:
                self._started += 1
                threading.Thread(
                    target=self._run, name=f"{self._name}-{self._started}", daemon=True
                ).start()
        self._work.put(function)

    def close(self) -> None:
        """Ends the threads that are idle, and the others as soon as their function returns."""
        with self._lock:
            for _ in range(self._started):
                self._work.put(None)

    def _run(self) -> None:
        while (function := self._work.get()) is not None:
            try:
                function()
            finally:
                with self._lock:
                    self._busy -= 1
            # Else the last task's payload would be held until the next one comes.
            del function
