"""Arguments of a script whose value is taken when the script is sent, not when it was requested.

A request may wait in the queue of its connection while the store does not answer the send before
it. A clock reading from before that wait would show the wait as a difference between two clocks.
"""

from __future__ import annotations

from ddq.entropy import Clock


class AtSend:
    """An integer argument that is read at each send of its script."""

    def value(self) -> int:
        """The argument for the send that is being built."""
        raise NotImplementedError


class SendTime(AtSend):
    """The caller's clock at the send, in ms since 1970, which the script compares with its own.

    Args:
        clock: of this process.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sent_ms = 0

    def value(self) -> int:
        """The clock now; remembered for ``explains``."""
        self._sent_ms = self._clock.now_ms()
        return self._sent_ms

    def explains(self, store_ms: int, skew_ms: int) -> bool:
        """Whether a store's time that is ahead of the send may only be late.

        The script ran between the send and now. While its time lies in between, give or take the
        accepted skew, it does not prove that the store's clock is wrong.

        Args:
            store_ms: the store's time in the script that refused the call.
            skew_ms: difference between the two clocks that is accepted.
        """
        return self._sent_ms + skew_ms < store_ms <= self._clock.now_ms() + skew_ms


class NotAfter(AtSend):
    """The moment after which the script refuses the request, in ms since 1970; 0: no bound.

    It was checked against this process's clock when the request arrived. If that clock is set back
    before the send, the moment is further ahead than the store remembers requests, and a repeat
    after that would act a second time. So it is bounded again at the send.

    Args:
        not_after_ms: as the request has it, or as it was filled from the deadline; 0: no bound.
        ahead_max_ms: how far it may lie ahead of this process's clock.
    """

    def __init__(self, clock: Clock, not_after_ms: int, ahead_max_ms: int) -> None:
        self._clock = clock
        self._not_after_ms = not_after_ms
        self._ahead_max_ms = ahead_max_ms

    def value(self) -> int:
        """The bounded moment."""
        if self._not_after_ms == 0:
            return 0
        return min(self._not_after_ms, self._clock.now_ms() + self._ahead_max_ms)
