"""The store's time as this process knows it, corrected by what replies show."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from ddq.config import Settings
from ddq.durations import span_text
from ddq.errors import DdqError, InvalidArgument, RequestExpired

if TYPE_CHECKING:
    from ddq.client.repeat import Timing

log = logging.getLogger("ddq.client")

TOLERANCE_MS = Settings().max_clock_skew_ms
"""A machine whose clock is off by no more than this is left to believe its clock."""

STORE_TIME = "store_time_ms"
SERVER_TIME = "server_time_ms"
"""Metadata of the errors that a wrong clock of the caller leads to."""


@dataclass(frozen=True, slots=True)
class Asked:
    """When a request was sent, in monotonic seconds."""

    at_s: float


class StoreTime:
    """This machine's clock, and by how much it is off.

    Requests carry the moment after which they must have no effect (``not_after``), and the store
    judges that by its own clock. A reply's store time lies between the moments at which the request
    was sent and the reply was read; where this machine's clock says otherwise, it is wrong.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._offset_ms = 0

    def now_ms(self) -> int:
        """Milliseconds since 1970, by the store's clock as far as it is known."""
        return self._timing.wall_ms() + self._offset_ms

    def asked(self) -> Asked:
        """Now, for observe()."""
        return Asked(self._timing.monotonic_s())

    def observe(self, store_ms: int, asked: Asked) -> bool:
        """Takes in the store's time of a reply that was read just now.

        Returns:
            Whether now_ms() is another than before.
        """
        read_ms = self._timing.wall_ms()
        # By the monotonic clock: the other one may have been set in between.
        asked_ms = read_ms - round((self._timing.monotonic_s() - asked.at_s) * 1_000)
        least_ms, most_ms = store_ms - read_ms, store_ms - asked_ms
        if least_ms - TOLERANCE_MS <= self._offset_ms <= most_ms + TOLERANCE_MS:
            return False
        right = least_ms - TOLERANCE_MS <= 0 <= most_ms + TOLERANCE_MS
        self._offset_ms = 0 if right else min(max(self._offset_ms, least_ms), most_ms)
        off = timedelta(milliseconds=abs(self._offset_ms))
        if right:
            log.warning("this machine's clock agrees with the store's again")
        else:
            log.warning(
                "this machine's clock is %(offset)s %(direction)s the store's; requests are dated "
                "by the store's, and times that you compute are off by as much",
                {
                    "offset": span_text(off),
                    "direction": "behind" if self._offset_ms > 0 else "ahead of",
                },
            )
        return True

    def learn_from(self, error: DdqError, asked: Asked) -> bool:
        """Whether an error shows that a request was dated by a wrong clock, corrected now."""
        if isinstance(error, RequestExpired):
            store_ms = error.metadata.get(STORE_TIME, "")
        elif isinstance(error, InvalidArgument):
            store_ms = error.metadata.get(SERVER_TIME, "")
        else:
            return False
        return store_ms.isdecimal() and self.observe(int(store_ms), asked)


def store_time_ms(reply: Message) -> int | None:
    """The store's time in a reply, or in the first of its items that has one."""
    for item in chain((reply,), getattr(reply, "results", ()), getattr(reply, "tasks", ())):
        receipt = getattr(item, "receipt", None)
        if receipt is not None and receipt.HasField("store_time"):
            return int(receipt.store_time.ToMilliseconds())
    return None
