"""The replication barrier as a rule: which replies may leave, decided from what WAIT and ROLE say.

Pure: no clock, no connection. GroupCommit carries the answers here and does what comes back.

WAIT counts *links to this master*. It cannot say whether this is still the master that the
Sentinels follow: Sentinel promotes one replica, and takes the other one from the old master
only 0.5 to 0.9 s later. An old master that resumes in between has a replica, a majority of two out
of three, and everything that it acknowledges is wiped. So a majority counts only while no failover
can be under way (ADR 012, ADR 018):

- *window*: from the moment at which one barrier was sent to the moment at which the next was
  answered, less time passes than a Sentinel needs to consider this master down. A master that was
  cut off or paused for long enough to be replaced breaks the chain.
- *set*: no replica has left since. The one that is promoted leaves at that moment.
- *settling*: after a break of either kind, or on a new connection, a majority counts again only
  once every replica that may leave has had the time to leave. Until then only all replicas count:
  whichever is promoted then has the write.
- *election*: at the end of the settling time the Sentinels are asked whether one of them was voted
  leader in an epoch newer than the master's. An election outlives the silence that caused it, for
  as long as its leader, or the replica that it selected, is cut off or paused.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from ddq.task import Durability, TopicSettings

SENTINEL_INFO_PERIOD_S = 1.0
"""How often a Sentinel asks its nodes for INFO during a failover. It learns from INFO that a
replica has been promoted, and re-points the others at its next tick. It pings as often, so a
Sentinel may consider a master down for as long after that master's return."""
SENTINEL_TICK_S = 0.1
SENTINEL_ELECTION_S = 5.0 + 10.0 + 1.0
"""How long after a master's return a Sentinel that is cut off may still be a candidate: the word of
another one, that the master is down, counts for 5 s; then it waits for votes until its election
time-out, and adds a random delay of up to a second."""
WINDOW_SHARE = 0.5
"""The window as a share of down-after. The rest is for a Sentinel whose last ping was answered just
before the cut."""
SETTLE_MARGIN = 1.5


@dataclass(frozen=True, slots=True)
class Barrier:
    """What a reply waits for; the default is nothing but the master."""

    mode: Durability = Durability.FAST
    fsync: bool = False

    @staticmethod
    def of(settings: TopicSettings) -> Barrier:
        """The barrier that a topic asks for: its durability and fsync."""
        return Barrier(settings.durability, settings.fsync)


FAST = Barrier()


def strength(barrier: Barrier) -> tuple[int, bool]:
    """Orders barriers: the one that waits for more is greater."""
    return barrier.mode, barrier.fsync


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a chain of barriers may go without an answer, and how long it settles after a break.

    Attributes:
        window_s: from one barrier's sending to the next one's answer, at most.
        settle_s: after a break, for this long only all replicas count.
        down_after_s: silence after which a Sentinel begins an election.
        election_s: after such a silence, for this long a Sentinel that does not answer may have
            begun an election that the others do not know of.
    """

    window_s: float
    settle_s: float
    down_after_s: float
    election_s: float

    @staticmethod
    def of(down_after_s: float) -> Timing:
        """From the time after which the store's own failover considers a silent master down."""
        settle_s = SETTLE_MARGIN * (SENTINEL_INFO_PERIOD_S + 2 * SENTINEL_TICK_S)
        return Timing(
            WINDOW_SHARE * down_after_s, settle_s, down_after_s, settle_s + SENTINEL_ELECTION_S
        )


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

    def unconfigured(self, attached: AbstractSet[tuple[str, int]]) -> AbstractSet[tuple[str, int]]:
        """The attached replicas that are not configured data nodes."""
        return attached - self.addresses if self.addresses else frozenset()


@dataclass(frozen=True, slots=True)
class Policy:
    """What the replies of a store connection wait for."""

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


@dataclass(frozen=True, slots=True)
class ElectionAnswer:
    """The Sentinels' answer, taken together.

    Attributes:
        pending: why an election that replaces the node may be under way; empty: none is, as far as
            those that answered can know.
        complete: every known Sentinel answered. Without that, one that is away may have begun an
            election that the others do not know of.
        missing: by the name of each Sentinel that gave no answer, why not.
    """

    pending: str = ""
    complete: bool = True
    missing: Mapping[str, str] = field(default_factory=dict)


NO_ELECTIONS = ElectionAnswer()
"""Where no Sentinel replaces a master."""


@dataclass(slots=True)
class Chain:
    """The barriers of one connection, from its opening on.

    Attributes:
        policy: what replies wait for.
        trusted_s: the last moment at which the node was known to be the master, in the event
            loop's time: when the last barrier that a majority confirmed was sent, on this
            connection or on the one before it, or when another node was last named as master.
        broken_because: why only all replicas count for now; empty once the chain has settled.
    """

    policy: Policy
    trusted_s: float = float("-inf")
    broken_because: str = "the connection is new"
    _settled_s: float | None = field(default=None)
    """When the settling time is over; None until a majority confirms a barrier after the break."""
    _elections_over_s: float = field(default=float("-inf"))
    _quiet: bool = field(default=False)
    _last: Answer | None = field(default=None)

    def wants_all(self, now_s: float) -> bool:
        """Whether the next barrier should wait for every replica, as fewer will not count."""
        if not self.policy.chained or self._last is None:
            return True
        if self.broken_because and not self._quiet:
            return True
        # After a quiet time the window has passed, and only all replicas will count.
        return now_s - self._last.sent_s > self.policy.timing.window_s / 2

    def wants_elections(self, now_s: float) -> bool:
        """Whether the chain has settled but for what the Sentinels say."""
        return (
            self.policy.chained
            and bool(self.broken_because)
            and not self._quiet
            and self._settled_s is not None
            and now_s >= self._settled_s
        )

    def hear(self, asked_s: float, answer: ElectionAnswer) -> None:
        """Takes the Sentinels' answer.

        Args:
            asked_s: when they were asked, in the event loop's time. An answer to a question from
                before the end of the settling time is ignored: an election may have begun since.
        """
        if self._settled_s is None or asked_s < self._settled_s:
            return
        if answer.pending:
            self.broken_because = answer.pending
        elif not answer.complete and asked_s < self._elections_over_s:
            self.broken_because = (
                "the master was silent for long enough to be replaced, and a Sentinel that does "
                "not answer may have begun an election"
            )
        else:
            self._quiet = True

    def judge(self, answer: Answer) -> bool:
        """Whether replies to everything that was written before this barrier may be released."""
        nodes = self.policy.nodes
        unknown = nodes.unconfigured(answer.attached)
        if unknown or len(answer.attached) > nodes.replicas_count:
            # WAIT cannot choose which replicas it counts: with an unknown one among them, any
            # confirmation may be that replica's.
            found = ", ".join(sorted(f"{host}:{port}" for host, port in unknown)) or (
                f"{len(answer.attached)} replicas instead of {nodes.replicas_count}"
            )
            self._break(f"a replica is attached that is not a configured data node: {found}")
            self._last = answer
            return False
        has_majority = answer.acked_count >= nodes.majority_replicas_count
        reason = self._break_reason(answer, has_majority=has_majority)
        if reason:
            self._break(reason)
        if has_majority:
            self._confirm(answer)
        self._last = answer
        if answer.acked_count >= nodes.replicas_count:
            return True
        return self.policy.chained and has_majority and not self.broken_because

    def _break_reason(self, answer: Answer, *, has_majority: bool) -> str:
        timing, last = self.policy.timing, self._last
        if not has_majority:
            return f"{answer.acked_count} replicas have confirmed, fewer than a majority"
        if last is None:
            return self.broken_because
        silent_s = answer.answered_s - last.sent_s
        if silent_s > timing.window_s:
            return f"{silent_s:.3f} s passed without a confirmed barrier"
        if not last.attached <= answer.attached:
            return "a replica has left"
        return ""

    def _break(self, reason: str) -> None:
        self.broken_because = reason
        self._settled_s = None
        self._quiet = False

    def _confirm(self, answer: Answer) -> None:
        """A majority has confirmed the barrier, at some moment until its answer."""
        timing = self.policy.timing
        if self._settled_s is None:
            # From the first confirmation after the break, not from the break: what breaks a chain
            # may last, and elections begin until its end.
            self._settled_s = answer.answered_s + timing.settle_s
            if answer.answered_s - self.trusted_s >= timing.down_after_s:
                self._elections_over_s = answer.answered_s + timing.election_s
        elif self._quiet and answer.sent_s >= self._settled_s:
            # By its sending: WAIT may have been answered up to a window before the reply arrived.
            self.broken_because = ""
        self.trusted_s = max(self.trusted_s, answer.sent_s)
