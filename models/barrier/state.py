"""One state of the model: an array of small numbers, and the names of their positions.

Hosts are 0, 1 and 2. Each has a data node and a Sentinel of the same number. Time passes in ticks
of half a down-after, which is the window of the rule. One write is sent and traced, after the
first fault has begun; the other barriers are heartbeats.
"""

from __future__ import annotations

from enum import IntEnum

HOSTS = (0, 1, 2)
OTHERS = ((1, 2), (0, 2), (0, 1))
"""The other hosts, by host."""
BITS = (1, 2, 4)
NONE = 3
"""No node: the client has no connection."""
EPOCHS_MAX = 2

DOWN_AFTER = 2
"""Ticks of silence after which a Sentinel considers a master down."""
WINDOW = 1
"""Ticks from one barrier's sending to the next one's answer, at most."""
REPOINT = 1
"""Ticks until a Sentinel that has promoted a replica has re-pointed the other one."""
PING = 1
"""Ticks for which a Sentinel may consider a master down after its return."""
ELECTION = 2
"""Ticks for which a Sentinel waits for votes."""
SETTLE = REPOINT + PING
"""Ticks of the settling time."""
SETTLE_ELECTION = SETTLE + ELECTION + 1
"""Ticks after which a Sentinel that does not answer has ended its candidacy."""


class Fault(IntEnum):
    """The fault of a host."""

    NONE = 0
    PAUSED = 1
    ISOLATED = 2
    CRASHED = 3


class Leading(IntEnum):
    """The progress of a Sentinel with a failover."""

    NO = 0
    CANDIDATE = 1
    ELECTED = 2
    SELECTED = 3
    PROMOTED = 4


class Write(IntEnum):
    """The progress of the write."""

    NOT_SENT = 0
    SENT = 1
    EXECUTED = 2
    ACKNOWLEDGED = 3


# Positions of one number for each host.
FAULT = 0
FOLLOWS = 3
"""The node that a data node replicates; itself: it is a master."""
LINKED = 6
"""Whether its link to that node is up and in sync."""
HAS = 9
"""Whether it has the write."""
ATTACHED = 12
"""The replicas that it considers attached, as bits."""
ORDERED = 15
"""Whether REPLICAOF NO ONE is in its socket, unread."""
EPOCH = 18
"""The epoch of a Sentinel's configuration."""
VOTE = 21
"""The newest epoch in which a Sentinel has voted."""
SILENCE = 24
"""Ticks for which a Sentinel's master has not answered it."""
DOWN = 27
"""Whether a Sentinel considers its master down."""
DOWN_FOR = 30
"""Ticks for which it has continued to do so although the master answers."""
LEADING = 33
LED_EPOCH = 36
SELECTED = 39
"""The replica that a leader has selected."""
LEADING_FOR = 42
"""Ticks of a candidacy, or of a promotion whose other replica is not re-pointed yet."""
# Positions of one number.
MASTERS = 45
"""The master of epoch 1, 2 …; of epoch 0 it is node 0."""
FAULTS_USED = MASTERS + EPOCHS_MAX
CLIENT = FAULTS_USED + 1
"""The node to which the client is connected."""
WRITE = CLIENT + 1
EXECUTED = WRITE + 1
"""Whether the node has executed the barrier in flight; there always is one."""
SENT_FOR = EXECUTED + 1
"""Ticks since that barrier was sent."""
SENT_SETTLED = SENT_FOR + 1
"""Whether the settling time was over when it was sent."""
HAS_LAST = SENT_SETTLED + 1
LAST_FOR = HAS_LAST + 1
"""Ticks since the previous barrier was sent."""
LAST_SEEN = LAST_FOR + 1
"""The replicas that the ROLE of that one named, as bits."""
BROKEN = LAST_SEEN + 1
SETTLES_IN = BROKEN + 1
"""Ticks until the settling time is over; UNCONFIRMED: it has not begun."""
TRUSTED_FOR = SETTLES_IN + 1
"""Ticks since the last barrier that a majority confirmed was sent."""
ELECTION_IN = TRUSTED_FOR + 1
"""Ticks until no Sentinel can be a candidate that the others do not know of."""
QUIET = ELECTION_IN + 1
"""Whether the Sentinels have answered that there is no election."""
SIZE = QUIET + 1

UNCONFIRMED = SETTLE + 1

State = bytes


def initial() -> State:
    """The first state: node 0 is master, its replicas are in sync, and the client has settled."""
    state = bytearray(SIZE)
    state[LINKED + 1] = state[LINKED + 2] = 1
    state[ATTACHED] = BITS[1] | BITS[2]
    state[HAS_LAST] = state[EXECUTED] = 1
    state[LAST_SEEN] = state[ATTACHED]
    return bytes(state)


def runs(state: State | bytearray, host: int) -> bool:
    """Whether the host's processes run."""
    return state[host] in {Fault.NONE, Fault.ISOLATED}


def reaches(state: State | bytearray, one: int, other: int) -> bool:
    """Whether two hosts reach each other; a host reaches itself while it runs."""
    if one == other:
        return runs(state, one)
    return state[one] == Fault.NONE and state[other] == Fault.NONE


def master_of(state: State | bytearray, epoch: int) -> int:
    """The node that is the master by the configuration of an epoch."""
    return state[MASTERS + epoch - 1] if epoch else 0


def named(state: State | bytearray, sentinel: int) -> int:
    """The node that a Sentinel names as master."""
    return master_of(state, state[EPOCH + sentinel])


def lost(state: State) -> bool:
    """Whether the write was acknowledged, and the newest configuration's master lacks it."""
    if state[WRITE] != Write.ACKNOWLEDGED:
        return False
    newest = max(state[EPOCH : EPOCH + 3])
    return not state[HAS + master_of(state, newest)]
