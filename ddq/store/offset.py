"""How far the clock of a store node is from the event loop's, from the replies of its scripts."""

from __future__ import annotations

from ddq.config import MS_PER_SECOND


class StoreOffset:
    """Turns times of one node's clock into times of the event loop.

    A script reads its clock somewhere between the request and the reply, so each reply bounds the
    offset from both sides. An estimate that lies within the bounds is kept: a reply that was held
    up for two seconds says little, and would make the next wake-up two seconds late.

    The masters of a Cluster each have a clock of their own, and may be apart by twice the accepted
    skew: one offset for all of them would be wrong for most.
    """

    def __init__(self) -> None:
        self._ahead_ms: float | None = None

    @property
    def known(self) -> bool:
        """Whether a reply has come yet."""
        return self._ahead_ms is not None

    def note(self, store_ms: int, asked_s: float, answered_s: float) -> None:
        """Takes in a reply.

        Args:
            store_ms: the node's clock in the script, in whole ms.
            asked_s, answered_s: before and after it, in the event loop's time.
        """
        least_ms = store_ms - answered_s * MS_PER_SECOND
        # The store cuts its time to whole milliseconds.
        most_ms = store_ms + 1 - asked_s * MS_PER_SECOND
        estimate_ms = least_ms if self._ahead_ms is None else self._ahead_ms
        self._ahead_ms = min(max(estimate_ms, least_ms), most_ms)

    def local_s(self, store_ms: int) -> float:
        """The event loop's time at which the node's clock says ``store_ms``.

        Raises:
            ValueError: no reply has come yet.
        """
        if self._ahead_ms is None:
            raise ValueError("the node's clock is not known before its first reply")
        return (store_ms - self._ahead_ms) / MS_PER_SECOND
