"""The calls that have arrived and wait for the server to begin with them.

gRPC hands over one call in each turn of the event loop, so a server that lacks processor time never
has many calls under way: those that it does not keep up with wait inside gRPC. How many these are,
gRPC says through channelz, its own statistics.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from grpc._cython import cygrpc  # type: ignore[attr-defined]

log = logging.getLogger(__name__)

SAMPLE_S = 0.1
"""The statistics of the server are read at most so often; it takes 0.2 ms."""
RECOUNT_SHARE = 0.02
"""The calls of each connection are counted at most so often that this is the share of the time it
takes: 0.3 ms per connection."""


class Channelz:
    """What gRPC counts about one server.

    Make it right after the server: it takes the newest one of this process.
    """

    def __init__(self) -> None:
        self._id = max(
            int(server["ref"]["serverId"])
            for server in _pages(cygrpc.channelz_get_servers, "server")
        )

    def started_count(self) -> int:
        """The calls that have arrived since the server was made."""
        (server, *_) = json.loads(cygrpc.channelz_get_servers(self._id))["server"]
        return int(server["data"].get("callsStarted", 0))

    def open_count(self) -> int:
        """The calls that have arrived and have not ended."""
        return sum(
            int(data.get("streamsStarted", 0))
            - int(data.get("streamsSucceeded", 0))
            - int(data.get("streamsFailed", 0))
            for data in self._sockets()
        )

    def _sockets(self) -> Iterator[dict[str, Any]]:
        def page(start: int) -> bytes:
            found: bytes = cygrpc.channelz_get_server_sockets(self._id, start, 0)
            return found

        for ref in _pages(page, "socketRef"):
            try:
                found = cygrpc.channelz_get_socket(int(ref["socketId"]))
            except ValueError:
                # The connection has been closed meanwhile.
                continue
            yield json.loads(found)["socket"]["data"]


def _pages(page: Callable[[int], bytes], field: str) -> Iterator[dict[str, Any]]:
    """All entries of a listing, which gRPC gives in pages by rising id."""
    start = 0
    while True:
        found = json.loads(page(start))
        entries = found.get(field, [])
        yield from entries
        if found.get("end") or not entries:
            return
        last = entries[-1].get("ref", entries[-1])
        start = int(last.get("serverId") or last["socketId"]) + 1


class WaitingCalls:
    """Counts the calls that wait, and for how long the oldest of them does at least.

    Calls that end while they wait are never handed over, and gRPC does not count them apart. So
    the difference between the calls that arrived and those that were handed over grows with each of
    them, until ``recount`` compares it with the calls that are open.

    Args:
        counts: of gRPC.
        now_s: a monotonic clock.

    Attributes:
        count: how many wait, or did at the last look.
    """

    def __init__(self, counts: Channelz, now_s: Callable[[], float] = time.monotonic) -> None:
        self._counts = counts
        self._now_s = now_s
        self._handed_over = 0
        self._ended_unseen = 0
        self._arrivals: deque[tuple[float, int]] = deque()
        self._next_sample_s = 0.0
        self._next_recount_s = 0.0

    def hand_over(self) -> None:
        """Notes that gRPC has handed over a call."""
        self._handed_over += 1
        if self._now_s() >= self._next_sample_s:
            self._sample()

    @property
    def count(self) -> int:
        """The calls that wait, as of the last sample and all that were handed over since."""
        if not self._arrivals:
            return 0
        return max(0, self._arrivals[-1][1] - self._seen)

    @property
    def age_s(self) -> float:
        """For how long the oldest one waits at least, in seconds; 0 if none is known to wait."""
        while self._arrivals and self._arrivals[0][1] <= self._seen:
            self._arrivals.popleft()
        return self._now_s() - self._arrivals[0][0] if self._arrivals else 0.0

    @property
    def _seen(self) -> int:
        return self._handed_over + self._ended_unseen

    def _sample(self) -> None:
        now_s = self._now_s()
        self._next_sample_s = now_s + SAMPLE_S
        arrived = self._counts.started_count()
        self._ended_unseen = min(self._ended_unseen, arrived - self._handed_over)
        while self._arrivals and self._arrivals[0][1] <= self._seen:
            self._arrivals.popleft()
        self._arrivals.append((now_s, arrived))

    def recount(self, under_way: int) -> None:
        """Leaves out the calls that ended while they waited, unless it did so just now.

        Args:
            under_way: the calls that were handed over and have not ended.
        """
        began_s = self._now_s()
        if began_s < self._next_recount_s:
            return
        waiting = max(0, self._counts.open_count() - under_way)
        arrived = self._counts.started_count()
        self._ended_unseen = arrived - self._handed_over - waiting
        ended_s = self._now_s()
        self._arrivals.append((ended_s, arrived))
        self._next_recount_s = ended_s + (ended_s - began_s) / RECOUNT_SHARE
