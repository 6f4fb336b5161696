"""Repeating a request until its deadline, and remembering what its attempts have shown.

The one rule that callers may build on: a mutation raises OutcomeUnknown, or an error after which
the request certainly had no effect and never will.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ddq.client.rpcs import Rpc
from ddq.client.status import AttemptFailedError, Failure
from ddq.entropy import Entropy
from ddq.errors import DdqError, OutcomeUnknown

R = TypeVar("R")


class Timing(Protocol):
    """Time as the client needs it; tests give one that does not pass by itself."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970."""

    def monotonic_s(self) -> float:
        """Seconds since some start; never goes back."""

    async def sleep(self, delay_s: float) -> None:
        """Waits."""


class SystemTiming:
    """From the operating system."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds since some start; never goes back."""
        return time.monotonic()

    async def sleep(self, delay_s: float) -> None:
        """Waits."""
        await asyncio.sleep(delay_s)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next attempt: doubled each time, a random half taken off.

    Attributes:
        initial_s: before the second attempt.
        max_s: at most, unless the server asks for more.
    """

    initial_s: float = 0.05
    max_s: float = 2.0

    def delay_s(self, attempts: int, asked_s: float | None, random: float) -> float:
        """After ``attempts`` attempts; ``random`` is in [0, 1). Never less than asked for."""
        # The exponent is bounded because 2.0 ** 1024 overflows.
        grown_s = min(self.max_s, self.initial_s * 2.0 ** min(attempts - 1, 60))
        jittered_s = grown_s * (0.5 + random / 2)
        # What the server asks for gets jitter on top, else all its clients come back at once.
        return max(jittered_s, asked_s * (1 + random / 4) if asked_s is not None else 0.0)


class History:
    """What the attempts of one request, or of one item of a batch, have shown so far.

    Args:
        what: names the request in messages, for example ``Ack mail/42``.
    """

    def __init__(self, rpc: Rpc, what: str) -> None:
        self._rpc = rpc
        self._what = what
        self._unknown = False
        self._last: Failure | None = None
        self.attempts = 0

    def record(self, failure: Failure) -> DdqError | None:
        """Takes in how an attempt ended. Returns the error to raise, or None: repeat."""
        self.attempts += 1
        self._last = failure
        if failure.repeatable:
            self._unknown = self._unknown or not failure.definite
            return None
        return self._verdict(failure)

    def give_up(self) -> DdqError:
        """The error to raise when there is no time for another attempt."""
        if self._last is None:
            return OutcomeUnknown(f"{self._what}: the deadline passed before the first attempt")
        return self._verdict(self._last)

    @property
    def asked_s(self) -> float | None:
        """What the server asked to wait after the last attempt, in seconds."""
        return self._last.retry_delay_s if self._last else None

    def _verdict(self, failure: Failure) -> DdqError:
        error = failure.error
        if not self._rpc.mutates:
            return error
        if failure.definite and (not self._unknown or isinstance(error, self._rpc.stays_true)):
            return error
        why = "the last answer was" if not failure.definite else "after an unknown attempt, it got"
        unknown = OutcomeUnknown(
            f"{self._what}: may or may not have taken effect; {why}: {error.message}",
            metadata={**error.metadata, "last_reason": error.reason},
        )
        unknown.__cause__ = error
        return unknown


class Repeater:
    """Runs attempts until one succeeds, one fails for good, or there is no time left."""

    def __init__(self, timing: Timing, entropy: Entropy, backoff: Backoff) -> None:
        self._timing = timing
        self._entropy = entropy
        self._backoff = backoff

    async def run(
        self,
        rpc: Rpc,
        what: str,
        attempt: Callable[[float], Awaitable[R]],
        deadline_s: float,
    ) -> R:
        """The result of the first attempt that succeeds.

        Args:
            attempt: is given the seconds that are left; raises AttemptFailedError.
            deadline_s: in monotonic time.

        Raises:
            DdqError: as History judges.
        """
        history: History | None = None
        while True:
            try:
                return await attempt(self.remaining_s(deadline_s))
            except AttemptFailedError as failed:
                history = history or History(rpc, what)
                error = history.record(failed.failure)
                # The internal exception is not part of the traceback that the caller gets.
                if error is not None:
                    raise error from error.__cause__
            if not await self.pause(history.attempts, history.asked_s, deadline_s):
                error = history.give_up()
                raise error from error.__cause__

    def remaining_s(self, deadline_s: float) -> float:
        """Seconds until the deadline, never less than a millisecond: 0 would mean none to gRPC."""
        return max(0.001, deadline_s - self._timing.monotonic_s())

    async def pause(self, attempts: int, asked_s: float | None, deadline_s: float) -> bool:
        """Waits before the next attempt; False, at once, if the deadline comes first."""
        delay_s = self._backoff.delay_s(attempts, asked_s, self._entropy.random())
        if self._timing.monotonic_s() + delay_s >= deadline_s:
            return False
        await self._timing.sleep(delay_s)
        return True
