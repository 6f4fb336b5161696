"""The replication barrier as a rule: which replies may leave, decided from what WAIT and ROLE say.

Pure: no clock, no connection. GroupCommit carries the answers here and does what comes back.

WAIT counts *links to this master*. It cannot say whether this is still the master that everybody
else believes in: Sentinel promotes one replica, and takes the other one from the old master only
0.5 to 0.9 s later. An old master that comes back into that gap has a replica, a majority of two
out of three, and everything that it acknowledges is wiped. So a majority counts only while nothing
can have happened behind our back (ADR 012):

- *window*: from the moment at which one barrier was sent to the moment at which the next was
  answered, less time passes than a Sentinel needs to think this master dead. Who was cut off or
  paused for long enough to be replaced cannot look unbroken.
- *set*: no replica has left since. The one that is promoted leaves at that moment.
- *settling*: after a break of either kind, or on a new connection, a majority counts again only
  when every replica that may go has had the time to go. Until then only all of them count:
  whichever is promoted then has the write.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from ddq.task import Durability

SENTINEL_INFO_PERIOD_S = 1.0
"""How often a Sentinel asks its nodes for INFO during a failover. It learns from INFO that a
replica has been promoted, and takes the others along at its next tick."""
SENTINEL_TICK_S = 0.1
WINDOW_SHARE = 0.5
"""Of down-after. The rest is for a Sentinel whose last ping was answered just before the cut."""
SETTLE_MARGIN = 1.5


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a chain of barriers may look away, and how long it is mistrusted after a break.

    Attributes:
        window_s: from one barrier's sending to the next one's answer, at most.
        settle_s: after a break, for so long only all replicas count.
    """

    window_s: float
    settle_s: float

    @staticmethod
    def of(down_after_s: float) -> Timing:
        """From the time after which the store's own failover thinks a silent master dead."""
        settle_s = SETTLE_MARGIN * (SENTINEL_INFO_PERIOD_S + 2 * SENTINEL_TICK_S)
        return Timing(WINDOW_SHARE * down_after_s, settle_s)


@dataclass(frozen=True, slots=True)
class DataNodes:
    """The store's configured data nodes: how many, and where if that is known.

    Attributes:
        count: of one master and its replicas.
        addresses: all of them, as the store names them; empty where only the count is known.
    """

    count: int = 1
    addresses: AbstractSet[tuple[str, int]] = frozenset()

    @staticmethod
    def parse(text: str) -> DataNodes:
        """Reads the setting data_nodes: HOST:PORT,HOST:PORT,… or how many there are; '' is one.

        Raises:
            ValueError: with one line that says what is wrong and which forms there are.
        """
        forms = "give HOST:PORT,HOST:PORT,… of all data nodes, or how many each shard has"
        text = text.strip()
        if not text:
            return DataNodes()
        if text.isdecimal():
            if int(text) < 1:
                raise ValueError(f"data_nodes is {text}; {forms}, at least 1")
            return DataNodes(int(text))
        addresses = []
        for part in text.split(","):
            host, _, port = part.strip().rpartition(":")
            if not host or not port.isdecimal():
                raise ValueError(f"data_nodes holds {part.strip()!r}; {forms}")
            addresses.append((host.strip("[]"), int(port)))
        if len(set(addresses)) < len(addresses):
            raise ValueError(f"data_nodes names a node twice; {forms}")
        return DataNodes(len(addresses), frozenset(addresses))

    @property
    def replicas_count(self) -> int:
        """All that a master can have."""
        return self.count - 1

    @property
    def majority_replicas_count(self) -> int:
        """Those that make a majority together with the master."""
        return self.count // 2

    def strays(self, attached: AbstractSet[tuple[str, int]]) -> AbstractSet[tuple[str, int]]:
        """Of the attached replicas those that nobody configured."""
        return attached - self.addresses if self.addresses else frozenset()


@dataclass(frozen=True, slots=True)
class Policy:
    """What a lane's replies wait for."""

    mode: Durability
    fsync: bool
    nodes: DataNodes
    timing: Timing

    @property
    def waits(self) -> bool:
        """Whether a barrier is sent at all."""
        return self.mode is not Durability.FAST and (self.nodes.replicas_count > 0 or self.fsync)

    @property
    def chained(self) -> bool:
        """Whether less than all replicas may be enough."""
        nodes = self.nodes
        return (
            self.mode is Durability.QUORUM and nodes.majority_replicas_count < nodes.replicas_count
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What one barrier said.

    Attributes:
        sent_s, answered_s: in the event loop's time.
        acked_count: replicas that have everything this connection wrote before it.
        attached: the replicas that the node had when it answered, by the node's own account.
    """

    sent_s: float
    answered_s: float
    acked_count: int
    attached: AbstractSet[tuple[str, int]]


@dataclass(slots=True)
class Chain:
    """The barriers of one connection, from its opening on.

    Attributes:
        broken_because: why only all replicas count for now; empty once the chain has settled.
    """

    policy: Policy
    broken_because: str = "the connection is new"
    _settled_s: float | None = field(default=None)
    _last: Answer | None = field(default=None)

    def wants_all(self, now_s: float) -> bool:
        """Whether the next barrier should wait for every replica, since fewer will not count."""
        if not self.policy.chained:
            return True
        return self._settled_s is None or now_s < self._settled_s

    def judge(self, answer: Answer) -> bool:
        """Whether everything that was written before this barrier may be told to callers."""
        nodes = self.policy.nodes
        strays = nodes.strays(answer.attached)
        if strays or len(answer.attached) > nodes.replicas_count:
            # WAIT cannot choose whom it counts: with a stranger among them, any count may be his.
            who = ", ".join(sorted(f"{host}:{port}" for host, port in strays)) or (
                f"{len(answer.attached)} replicas instead of {nodes.replicas_count}"
            )
            self._break(answer, f"a replica is attached that is no configured data node: {who}")
            self._settled_s = None
            return False
        reason = self._why_broken(answer)
        if reason:
            self._break(answer, reason)
        elif self._settled_s is not None and answer.answered_s >= self._settled_s:
            self.broken_because = ""
        self._last = answer
        if answer.acked_count >= nodes.replicas_count:
            return True
        return self.policy.chained and not reason and not self.broken_because

    def _why_broken(self, answer: Answer) -> str:
        timing, last = self.policy.timing, self._last
        if answer.acked_count < self.policy.nodes.majority_replicas_count:
            return f"{answer.acked_count} replicas have confirmed, fewer than a majority"
        if self._settled_s is None:
            return self.broken_because
        since_s = answer.sent_s if last is None else last.sent_s
        if answer.answered_s - since_s > timing.window_s:
            return f"{answer.answered_s - since_s:.3f} s went by without a confirmed barrier"
        if last is not None and not last.attached <= answer.attached:
            return "a replica has left"
        return ""

    def _break(self, answer: Answer, reason: str) -> None:
        self.broken_because = reason
        self._settled_s = answer.answered_s + self.policy.timing.settle_s
