"""What a handler is given, and what it may raise."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ddq.client import Lease


class Retry(Exception):  # noqa: N818 - what it asks for reads better than RetryError
    """Raised by a handler: this attempt failed, try again.

    Args:
        reason: kept as the task's last error.
        delay: until the next attempt; None: the retry policy's backoff.
    """

    def __init__(self, reason: str = "", *, delay: timedelta | None = None) -> None:
        super().__init__(reason)
        self.delay = delay


class DeadLetter(Exception):  # noqa: N818 - what it asks for reads better than DeadLetterError
    """Raised by a handler: the task is dead now, whatever attempts are left.

    Args:
        reason: kept as the task's last error.
    """


class Snooze(Exception):  # noqa: N818 - what it asks for reads better than SnoozeError
    """Raised by a handler: too early. The task is due again later, and the attempt does not count.

    After 10,000 snoozes of one run the attempt counts as failed, with the same delay.

    Args:
        delay: until the task is due again, 1 ms to 10 years.
        reason: kept as the task's last error, only where the attempt counts.

    Raises:
        TypeError: ``delay`` is not a timedelta.
    """

    def __init__(self, delay: timedelta, reason: str = "") -> None:
        if not isinstance(delay, timedelta):
            raise TypeError(f"delay is {delay!r}; give a timedelta")
        super().__init__(reason)
        self.delay = delay


@dataclass(frozen=True, slots=True)
class NextRun:
    """When the next run of a task is due, and what it carries; see ``Client.run_again``.

    Raises:
        TypeError: a value is of another type. In the handler, where it can still be reported.
        ValueError: both ``delay`` and ``due``, or a ``due`` without a time zone.
    """

    delay: timedelta | None = None
    due: datetime | None = None
    payload: bytes | None = None
    headers: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.delay, timedelta | None):
            raise TypeError(f"delay is {self.delay!r}; give a timedelta")
        if not isinstance(self.due, datetime | None):
            raise TypeError(f"due is {self.due!r}; give a datetime")
        if not isinstance(self.payload, bytes | None):
            raise TypeError(f"payload is {type(self.payload).__name__}; give bytes")
        if any(not isinstance(text, str) for pair in (self.headers or {}).items() for text in pair):
            raise TypeError("headers are not all strings")
        if self.delay is not None and self.due is not None:
            raise ValueError("give a delay or a due time, not both")
        if self.due is not None and self.due.utcoffset() is None:
            raise ValueError("due has no time zone; give one, for example datetime.UTC")


class Verdict(enum.Enum):
    """The outcome of one delivery, as far as its worker knows."""

    ACKED = "acked"
    NACKED = "nacked"
    """It will be tried again."""
    SNOOZED = "snoozed"
    """Put off: it is due again later, and the attempt does not count."""
    DEAD = "dead"
    """It was the last attempt, or the handler said so."""
    LOST = "lost"
    """The lease ended before the handler did; another worker has the task, or will."""
    UNKNOWN = "unknown"
    """The worker's last request about it got no answer."""
    RELEASED = "released"
    """Handed back: the task is ready again, and the attempt does not count."""


_LOCK = threading.Lock()
"""For the events of all jobs, which few handlers ask for."""


class Job:
    """One attempt at one task, as its handler sees it.

    Attributes:
        lease: the task and the right to it.
        early: the store handed it out before its due time, which it never should.
    """

    def __init__(
        self, lease: Lease, deadline_s: float, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self.lease = lease
        self._deadline_s = deadline_s
        self._loop = loop
        self._next_run: NextRun | None = None
        self._is_lost = False
        # Made when they are asked for: together they would cost as much as all else of a job.
        self._lost: asyncio.Event | None = None
        self._lost_flag: threading.Event | None = None

    @property
    def topic(self) -> str:
        """The task's topic."""
        return self.lease.topic

    @property
    def id(self) -> str:
        """The task's id; the same in every attempt."""
        return self.lease.id

    @property
    def payload(self) -> bytes:
        """The bytes that were enqueued."""
        return self.lease.payload

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that were enqueued."""
        return self.lease.headers

    @property
    def attempt(self) -> int:
        """The number of this attempt in its run, from 1."""
        return self.lease.attempt

    @property
    def due_time(self) -> datetime | None:
        """When the task became due."""
        return self.lease.due_time

    @property
    def last_error(self) -> str:
        """The error of the previous attempt; empty in the first."""
        return self.lease.task.last_error

    @property
    def early(self) -> bool:
        """Whether it was delivered before its due time, both by the store's clock."""
        store_time, due_time = self.lease.receipt.store_time, self.lease.due_time
        return store_time is not None and due_time is not None and store_time < due_time

    @property
    def lost(self) -> asyncio.Event:
        """An event that is set when the handler should stop.

        That is when the lease has ended, ``max_run`` is over, or the worker's grace time is. An
        async handler is cancelled as well; a plain function should look at ``is_lost`` now and
        then, or wait in ``wait_until_lost``, and return.
        """
        with _LOCK:
            if self._lost is None:
                self._lost = asyncio.Event()
                if self._is_lost:
                    self._lost.set()
            return self._lost

    @property
    def is_lost(self) -> bool:
        """Like ``lost``, and may be asked from any thread."""
        return self._is_lost

    def wait_until_lost(self, timeout_s: float | None = None) -> bool:
        """Blocks a plain function's thread until the job is lost; False if the time ran out first.

        Args:
            timeout_s: seconds; None: without limit.
        """
        with _LOCK:
            if self._lost_flag is None:
                self._lost_flag = threading.Event()
                if self._is_lost:
                    self._lost_flag.set()
            flag = self._lost_flag
        return flag.wait(timeout_s)

    @property
    def deadline_s(self) -> float:
        """When this worker takes the lease for lost, in the time of time.monotonic(), in seconds.

        Each heartbeat that is answered moves it.
        """
        return self._deadline_s

    @property
    def next_run(self) -> NextRun | None:
        """The next run that the handler has planned; None: there is none."""
        return self._next_run

    def run_again(
        self,
        *,
        delay: timedelta | None = None,
        due: datetime | None = None,
        payload: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Plans the next run of this id, which is enqueued together with the ack.

        Nothing is enqueued unless the handler returns without an error; of several calls the last
        one counts. The arguments are those of ``Client.run_again``. May be called from any thread.

        Raises:
            TypeError, ValueError: as NextRun.
        """
        self._next_run = NextRun(delay, due, payload, headers)

    def prolong(self, deadline_s: float) -> None:
        """For the worker: the lease was extended."""
        self._deadline_s = max(self._deadline_s, deadline_s)

    def lose(self) -> None:
        """For the worker, from any thread: the handler should stop."""
        with _LOCK:
            self._is_lost = True
            lost, flag = self._lost, self._lost_flag
        if flag is not None:
            flag.set()
        if lost is None:
            return
        if self._loop is None:
            lost.set()
            return
        # The program's loop may have been closed without waiting for the worker.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(lost.set)
