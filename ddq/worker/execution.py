"""One run of a handler, between the worker's event loop and where the handler runs."""

from __future__ import annotations

import asyncio
import math
import threading
import time

from ddq.worker.job import Job
from ddq.worker.outcome import Outcome

_LOCK = threading.Lock()
"""Held by all executions for the one step that two threads may take at once: begin or withdraw."""


class Execution:
    """One run of a handler.

    Attributes:
        begun_s: when the handler began, in monotonic seconds; None: it has not.
        outcome: how the handler ended; None: it has not. For the worker's event loop, as all that
            follows.
        ended: is set with the outcome; only where a task waits for it.
        task: of the worker, which stops the handler or hands the lease back; None: nothing has
            happened that needs one.
        beat_s: when the lease is to be extended next; infinite while that is under way.
        keeps_lease: whether the lease is extended.
    """

    __slots__ = (
        "_withdrawn",
        "beat_s",
        "begun_s",
        "ended",
        "job",
        "keeps_lease",
        "outcome",
        "task",
    )

    def __init__(self, job: Job) -> None:
        self.job = job
        self.begun_s: float | None = None
        self.outcome: Outcome | None = None
        self.ended: asyncio.Event | None = None
        self.task: asyncio.Task[None] | None = None
        self.beat_s = math.inf
        self.keeps_lease = True
        self._withdrawn = False

    def withdraw(self) -> bool:
        """Keeps the handler from beginning; False if it has begun."""
        with _LOCK:
            self._withdrawn = self.begun_s is None
            return self._withdrawn

    def begin(self) -> bool:
        """For the handler's side: whether the handler may begin, now.

        It may not when the lease is over: another worker may have the task. True once it has begun.
        """
        with _LOCK:
            if self.begun_s is None and not self._withdrawn:
                now_s = time.monotonic()
                if now_s < self.job.deadline_s:
                    self.begun_s = now_s
                else:
                    self._withdrawn = True
            return self.begun_s is not None
