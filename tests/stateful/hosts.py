"""Faults of whole hosts, and the elections that follow them, at the pace of a real Sentinel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from tests.stateful.cluster import Cluster
from tests.stateful.wires import nothing

DOWN_AFTER_S = 0.080
ELECTION_S = 0.200
"""After down-after, a failover may begin so much later: also when the master is back by then. The
Sentinels have voted by then, or consider the master down."""
REPOINT_S = 0.060
"""After a promotion, the other replica is taken from the old master so much later at most."""


class Hosts:
    """Each data node's host, with its Sentinel beside it.

    Attributes:
        cut: the host that is cut off or paused.
        frozen: it is paused: its node answers nothing.
        elected: the replica that the leader of an election has selected, on the leader's own host.
    """

    def __init__(
        self, cluster: Cluster, loop: asyncio.AbstractEventLoop, failovers_max_count: int
    ) -> None:
        self._cluster = cluster
        self._loop = loop
        self._failovers_max_count = failovers_max_count
        self.cut: str | None = None
        self.frozen = False
        self.elected: str | None = None
        self._cut_s = self._healed_s = float("-inf")

    @property
    def has_voted(self) -> bool:
        """Whether Sentinels may have voted in an epoch that is newer than the master's."""
        return self.elected is not None or self.election_is_due()

    def heal(self, deposed: str) -> None:
        """The host of a deposed master is back, if it was away."""
        if self.cut == deposed:
            self._uncut()

    def end_faults(self) -> None:
        """The host that is away is back, and an election that has got so far completes."""
        if self.cut is not None and self.cut == self.elected:
            self._elected_is_back(self.cut)
        elif self.cut is not None:
            self._uncut()
        self._give_up()

    def ways(self) -> list[tuple[str, Callable[[], None]]]:
        """What happens when a whole host is cut off or paused, one at a time, and not for ever.

        The replicas hear nothing of a master's host that is away. Once that has lasted for
        down-after the Sentinels vote, perhaps just after it is back, and their leader selects a
        replica that has most. The election continues by itself: also when the master's
        host is back, and also when it is the turn of the leader's own host to be away.
        """
        cluster = self._cluster
        if self.elected is not None:
            return self._election_ways(self.elected)
        if cluster.failovers >= self._failovers_max_count:
            return []
        ways: list[tuple[str, Callable[[], None]]] = []
        if self.cut is None:
            master = cluster.master
            ways.append(("master's host CUT OFF", partial(self._cut, master, frozen=False)))
            ways.append(("master's host PAUSED", partial(self._cut, master, frozen=True)))
        else:
            ways.append(("master's host is back", self._uncut))
        if self.election_is_due():
            for name in cluster.best_replicas():
                ways.append((f"FAILOVER to {name}", partial(self._elect, name)))
                ways.append((f"{name} is SELECTED", partial(self._select, name)))
        return ways

    def election_is_due(self) -> bool:
        """Whether the master's host is, or has just been, away for long enough."""
        now_s = self._loop.time()
        if self.cut == self._cluster.master:
            return now_s - self._cut_s >= DOWN_AFTER_S
        long_enough = self._healed_s - self._cut_s >= DOWN_AFTER_S
        return self.cut is None and long_enough and now_s - self._healed_s <= ELECTION_S

    def _election_ways(self, name: str) -> list[tuple[str, Callable[[], None]]]:
        """What may follow once a replica was selected."""
        ways: list[tuple[str, Callable[[], None]]] = []
        is_promoted = self._cluster.hidden == name
        if not is_promoted:
            ways.append((f"{name} is PROMOTED", partial(self._promote, name)))
        if self.cut is None:
            ways.append((f"host of {name} CUT OFF", partial(self._cut, name, frozen=False)))
            ways.append(("election is given up", self._give_up))
        elif self.cut != name:
            ways.append(("master's host is back", self._uncut))
        else:
            ways.append((f"host of {name} is back", partial(self._elected_is_back, name)))
        return ways

    def _select(self, name: str) -> None:
        self.elected = name
        self._healed_s = float("-inf")

    def _give_up(self) -> None:
        self.elected = None

    def _promote(self, name: str) -> None:
        if self.cut == name:
            # Behind the cut: neither the old master nor the other Sentinels hear of it.
            self._cluster.promote_hidden(name)
        else:
            self.elected = None
            self._elect(name)

    def _elected_is_back(self, name: str) -> None:
        """Its epoch is the newest, if it was promoted, and all Sentinels follow it."""
        self._uncut()
        if self._cluster.hidden == name:
            self.elected = None
            self._elect(name)

    def _cut(self, host: str, *, frozen: bool) -> None:
        self.cut, self.frozen, self._cut_s = host, frozen, self._loop.time()
        # Time has to pass, or nothing comes of it.
        for after_s in (DOWN_AFTER_S, DOWN_AFTER_S + ELECTION_S):
            self._loop.call_later(after_s, nothing)

    def _uncut(self) -> None:
        self.cut, self.frozen, self._healed_s = None, False, self._loop.time()

    def _elect(self, name: str) -> None:
        self._cluster.fail_over(name)
        self._healed_s = float("-inf")
        failover = self._cluster.failovers

        def repoint() -> None:
            if self._cluster.deposed is not None and self._cluster.failovers == failover:
                self._cluster.repoint()

        self._loop.call_later(REPOINT_S, repoint)
