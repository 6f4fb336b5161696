"""The client: one connection, its barriers, and the rule that releases replies.

The rule is that of ddq/store/barrier.py, in ticks; tests/models/test_barrier.py compares the two.
Each part can be left out, to find the losses that it prevents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from models.barrier.state import (
    ATTACHED,
    BROKEN,
    CLIENT,
    DOWN,
    DOWN_AFTER,
    ELECTION_IN,
    EPOCH,
    EXECUTED,
    FAULT,
    FAULTS_USED,
    FOLLOWS,
    HAS,
    HAS_LAST,
    HOSTS,
    LAST_FOR,
    LAST_SEEN,
    LEADING,
    LINKED,
    NONE,
    OTHERS,
    QUIET,
    SENT_FOR,
    SENT_SETTLED,
    SETTLE,
    SETTLE_ELECTION,
    SETTLES_IN,
    SIZE,
    TRUSTED_FOR,
    UNCONFIRMED,
    VOTE,
    WINDOW,
    WRITE,
    Fault,
    State,
    Write,
    named,
    reaches,
    runs,
)
from models.barrier.store import Step, leave

REPLICAS = 2
MAJORITY = 1


@dataclass(frozen=True, slots=True)
class Rule:
    """The parts of the rule that apply; all of them together are ADR 012 with ADR 018.

    Attributes:
        chain: a majority counts only on a chain; without it, always.
        window: silence breaks the chain.
        set: a replica that leaves breaks it.
        settle: after a break only all replicas count for a while.
        votes: the Sentinels are asked for newer votes at the end of that time.
        down: none of those that answer may consider the master down.
        candidates: a Sentinel that does not answer is given time to give its election up.
        all: only all replicas count, ever.
    """

    chain: bool = True
    window: bool = True
    set: bool = True
    settle: bool = True
    votes: bool = True
    down: bool = True
    candidates: bool = True
    all: bool = False


def act(state: State, rule: Rule) -> Iterator[Step]:
    """The next actions of the client, and of its master for it."""
    if state[CLIENT] == NONE:
        # A write that is neither acknowledged nor in flight cannot be lost.
        if state[WRITE] == Write.NOT_SENT:
            yield from _connect(state)
        return
    yield from _ask(state, rule)
    if not runs(state, state[CLIENT]):
        return
    if state[EXECUTED]:
        yield from _answer(state, rule)
    else:
        yield _execute(state)


def may_tick(state: State) -> bool:
    """Whether the master has completed its prompt actions."""
    node = state[CLIENT]
    if node == NONE or not runs(state, node):
        return True
    return bool(state[EXECUTED]) and state[SENT_FOR] < WINDOW


def tick(after: bytearray, rule: Rule) -> None:
    """Advances the client's clock by one tick."""
    if after[CLIENT] == NONE:
        return
    after[LAST_FOR] = min(WINDOW + 1, after[LAST_FOR] + 1)
    after[SENT_FOR] = min(WINDOW + 1, after[SENT_FOR] + 1)
    if rule.candidates:
        after[TRUSTED_FOR] = min(DOWN_AFTER, after[TRUSTED_FOR] + 1)
    if after[SETTLES_IN] not in {0, UNCONFIRMED}:
        after[SETTLES_IN] -= 1
    if after[ELECTION_IN]:
        after[ELECTION_IN] -= 1


def _connect(state: State) -> Iterator[Step]:
    for node in HOSTS:
        names = any(runs(state, sentinel) and named(state, sentinel) == node for sentinel in HOSTS)
        if names and runs(state, node) and state[FOLLOWS + node] == node:
            after = bytearray(state)
            after[CLIENT:] = bytes(SIZE - CLIENT)
            after[CLIENT], after[BROKEN], after[SETTLES_IN] = node, 1, UNCONFIRMED
            after[TRUSTED_FOR] = DOWN_AFTER
            yield f"the client connects to n{node} and sends a heartbeat", bytes(after)


def _execute(state: State) -> Step:
    node = state[CLIENT]
    after = bytearray(state)
    if state[FOLLOWS + node] != node:
        leave(after)
        return f"n{node} is not the master", bytes(after)
    after[EXECUTED] = 1
    if state[WRITE] == Write.SENT:
        after[WRITE], after[HAS + node] = Write.EXECUTED, 1
    return f"n{node} executes the barrier", bytes(after)


def _answer(state: State, rule: Rule) -> Iterator[Step]:
    """Answers the barrier, applies the rule, and sends the next one: a heartbeat or the write."""
    node = state[CLIENT]
    confirmed = sum(
        state[LINKED + other]
        and state[FOLLOWS + other] == node
        and state[HAS + other] == state[HAS + node]
        and reaches(state, node, other)
        for other in OTHERS[node]
    )
    after = bytearray(state)
    said = judge(after, confirmed, state[ATTACHED + node], rule)
    if after[WRITE] == Write.ACKNOWLEDGED:
        # Later actions of the client have no effect.
        leave(after)
        yield said, bytes(after)
        return
    after[SENT_SETTLED] = after[SETTLES_IN] == 0
    yield f"{said}; the client sends a heartbeat", bytes(after)
    if state[WRITE] == Write.NOT_SENT and state[FAULTS_USED]:
        after[WRITE] = Write.SENT
        yield f"{said}; the client SENDS THE WRITE", bytes(after)


def _ask(state: State, rule: Rule) -> Iterator[Step]:
    """Asks the Sentinels; those of a host that is cut off do not reach the client."""
    if not state[BROKEN] or state[QUIET] or state[SETTLES_IN] != 0:
        return
    answering = [host for host in HOSTS if state[FAULT + host] == Fault.NONE]
    after = bytearray(state)
    pending = rule.votes and _is_pending(state, answering, rule)
    hear(after, pending=pending, complete=len(answering) == len(HOSTS), rule=rule)
    if after[QUIET]:
        yield f"Sentinels {answering} answer that there is no election", bytes(after)


def hear(after: bytearray, *, pending: bool, complete: bool, rule: Rule) -> None:
    """Applies the Sentinels' answer to the client's state.

    Args:
        pending: an election may be under way.
        complete: every Sentinel answered.
    """
    if not pending and (complete or not rule.candidates or not after[ELECTION_IN]):
        after[QUIET] = 1


def _is_pending(state: State, answering: list[int], rule: Rule) -> bool:
    if len(answering) < 2:
        return True
    node = state[CLIENT]
    naming = [state[EPOCH + each] for each in answering if named(state, each) == node]
    epoch = max(naming, default=-1)
    for each in answering:
        if named(state, each) != node and state[EPOCH + each] >= epoch:
            return True
    if rule.down and any(state[DOWN + each] for each in answering):
        return True
    if all(state[VOTE + each] <= epoch for each in answering):
        return False
    # A newer vote had no result only if every Sentinel answers, and none is leading.
    return len(answering) < len(HOSTS) or any(state[LEADING + each] for each in answering)


def judge(after: bytearray, confirmed: int, seen: int, rule: Rule) -> str:
    """Applies the rule to an answered barrier; changes the client's state.

    Args:
        confirmed: how many replicas have confirmed it.
        seen: the replicas that the node named, as bits.
    """
    reason = _break_reason(after, confirmed, seen, rule)
    has_majority = confirmed >= MAJORITY
    if reason:
        after[BROKEN], after[SETTLES_IN], after[QUIET] = 1, UNCONFIRMED, 0
    if has_majority:
        if after[SETTLES_IN] == UNCONFIRMED:
            after[SETTLES_IN] = SETTLE if rule.settle else 0
            if after[TRUSTED_FOR] >= DOWN_AFTER:
                after[ELECTION_IN] = SETTLE_ELECTION
        elif after[BROKEN] and after[QUIET] and after[SENT_SETTLED]:
            after[BROKEN] = 0
        after[TRUSTED_FOR] = min(after[TRUSTED_FOR], after[SENT_FOR])
    after[HAS_LAST], after[LAST_FOR], after[LAST_SEEN] = 1, after[SENT_FOR], seen
    after[SENT_FOR] = after[SENT_SETTLED] = after[EXECUTED] = 0
    good = confirmed >= REPLICAS
    if not good and not rule.all:
        good = has_majority and (not after[BROKEN] or not rule.chain)
    if good and after[WRITE] == Write.EXECUTED:
        after[WRITE] = Write.ACKNOWLEDGED
        return f"{confirmed} confirm{reason}: THE WRITE IS ACKNOWLEDGED"
    return f"{confirmed} confirm{reason}: {'good' if good else 'not enough'}"


def _break_reason(state: bytearray, confirmed: int, seen: int, rule: Rule) -> str:
    if confirmed < MAJORITY:
        return ", fewer than a majority"
    if not state[HAS_LAST]:
        return ", a new connection"
    if rule.window and state[LAST_FOR] > WINDOW:
        return ", after a silence"
    if rule.set and state[LAST_SEEN] & ~seen:
        return ", and a replica has left"
    return ""
