"""The actions of data nodes and Sentinels, and when time may pass.

Each action is a function that yields (description, the state after it). Actions that are prompt in
a real store happen at once (``prompt``): replication, and messages between Sentinels. All others
may happen now or later (``happen``), before or after a fault, and within bounds before or after
time passes (``may_tick``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from models.barrier.state import (
    ATTACHED,
    BITS,
    CLIENT,
    DOWN,
    DOWN_AFTER,
    DOWN_FOR,
    ELECTION,
    EPOCH,
    EPOCHS_MAX,
    FAULT,
    FAULTS_USED,
    FOLLOWS,
    HAS,
    HOSTS,
    LEADING,
    LEADING_FOR,
    LED_EPOCH,
    LINKED,
    MASTERS,
    NONE,
    ORDERED,
    OTHERS,
    PING,
    REPOINT,
    SELECTED,
    SILENCE,
    SIZE,
    VOTE,
    WRITE,
    Fault,
    Leading,
    State,
    named,
    reaches,
    runs,
)

Step = tuple[str, State]


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of a search: whole hosts, one at a time, the first one that of the master.

    Attributes:
        kinds: the possible kinds of the first fault, the second, ….
        candidates: whether a fault may occur between a Sentinel's vote for itself, the votes of
            the others and the selection of a replica; otherwise they are one action.
    """

    kinds: tuple[tuple[Fault, ...], ...]
    candidates: bool = False


def prompt(state: State) -> Iterator[Step]:
    """The actions that happen at once, if any is possible."""
    yield from _replicate(state)
    for sentinel in HOSTS:
        if runs(state, sentinel):
            yield from _miss(state, sentinel)
            yield from _learn(state, sentinel)


def happen(state: State, faults: Faults) -> Iterator[Step]:
    """The faults, and the actions of the Sentinels' failover."""
    yield from _fault(state, faults)
    for node in HOSTS:
        if state[FOLLOWS + node] == node and runs(state, node):
            yield from _notice(state, node)
    for sentinel in HOSTS:
        if runs(state, sentinel):
            yield from _hear(state, sentinel)
            yield from _lead(state, sentinel, faults)
            yield from _correct(state, sentinel)
    yield from _obey(state)


def _fault(state: State, faults: Faults) -> Iterator[Step]:
    faulty = [host for host in HOSTS if state[FAULT + host]]
    for host in faulty:
        if state[FAULT + host] != Fault.CRASHED:
            after = bytearray(state)
            after[FAULT + host] = Fault.NONE
            for own in HOSTS:
                # After a fault a ping is answered before the next one begins.
                if reaches(after, own, named(after, own)):
                    after[SILENCE + own] = 0
            yield f"host {host} is back", bytes(after)
    used = state[FAULTS_USED]
    if faulty or used == len(faults.kinds):
        return
    for host in HOSTS if used else (0,):
        for kind in faults.kinds[used]:
            after = bytearray(state)
            after[FAULTS_USED] += 1
            after[FAULT + host] = kind
            if kind == Fault.CRASHED:
                after[LEADING + host] = after[ORDERED + host] = after[LINKED + host] = 0
                for other in OTHERS[host]:
                    if after[FOLLOWS + other] == host:
                        after[LINKED + other] = 0
            yield f"FAULT: host {host} is {kind.name.lower()}", bytes(after)


# Data nodes --------------------------------------------------------------------------------


def _replicate(state: State) -> Iterator[Step]:
    for node in HOSTS:
        master = state[FOLLOWS + node]
        follows = master != node and state[FOLLOWS + master] == master
        if not follows or not reaches(state, node, master):
            continue
        if not state[LINKED + node]:
            after = bytearray(state)
            after[LINKED + node] = 1
            after[HAS + node] = after[HAS + master]
            after[ATTACHED + master] |= BITS[node]
            yield f"n{node} copies n{master}", bytes(after)
        elif state[HAS + node] != state[HAS + master]:
            after = bytearray(state)
            after[HAS + node] = state[HAS + master]
            yield f"n{node} receives the write", bytes(after)


def _notice(state: State, master: int) -> Iterator[Step]:
    for node in OTHERS[master]:
        if state[ATTACHED + master] & BITS[node] and _has_left(state, master, node):
            after = bytearray(state)
            after[ATTACHED + master] &= ~BITS[node]
            yield f"n{master} notices that n{node} has left", bytes(after)


def _has_left(state: State, master: int, node: int) -> bool:
    follows = state[LINKED + node] and state[FOLLOWS + node] == master
    return not follows and reaches(state, master, node)


def _obey(state: State) -> Iterator[Step]:
    for node in HOSTS:
        if not _may_obey(state, node):
            continue
        after = bytearray(state)
        after[ORDERED + node] = after[LINKED + node] = after[ATTACHED + node] = 0
        after[FOLLOWS + node] = node
        yield f"n{node} reads REPLICAOF NO ONE", bytes(after)


def _may_obey(state: State, node: int) -> bool:
    if not state[ORDERED + node] or not runs(state, node):
        return False
    # The order crosses a cut only from a Sentinel of the same host.
    leader_is_here = state[LEADING + node] == Leading.SELECTED and state[SELECTED + node] == node
    return state[FAULT + node] != Fault.ISOLATED or leader_is_here


def _follow(after: bytearray, node: int, master: int) -> None:
    after[FOLLOWS + node] = master
    after[LINKED + node] = after[ATTACHED + node] = 0
    if after[CLIENT] == node:
        # A node that is demoted closes its connections.
        leave(after)


def leave(after: bytearray) -> None:
    """Ends the client's connection, and with it the state of its chain."""
    write = after[WRITE]
    after[CLIENT:] = bytes(SIZE - CLIENT)
    after[CLIENT], after[WRITE] = NONE, write


# Sentinels ---------------------------------------------------------------------------------


def _miss(state: State, own: int) -> Iterator[Step]:
    hears = reaches(state, own, named(state, own))
    if not state[DOWN + own] and not hears and state[SILENCE + own] >= DOWN_AFTER:
        after = bytearray(state)
        after[DOWN + own] = 1
        yield f"S{own} considers n{named(state, own)} down", bytes(after)


def _hear(state: State, own: int) -> Iterator[Step]:
    if state[DOWN + own] and reaches(state, own, named(state, own)):
        after = bytearray(state)
        after[DOWN + own] = after[DOWN_FOR + own] = 0
        yield f"S{own} reaches n{named(state, own)} again", bytes(after)


def _lead(state: State, own: int, faults: Faults) -> Iterator[Step]:
    match state[LEADING + own]:
        case Leading.NO if faults.candidates:
            yield from _stand(state, own)
        case Leading.NO:
            yield from _elect(state, own)
        case Leading.CANDIDATE:
            yield from _gather_votes(state, own)
        case Leading.ELECTED:
            yield from _select(state, own)
        case Leading.SELECTED:
            yield from _promote(state, own)
        case Leading.PROMOTED:
            yield from _repoint(state, own)


def _stand(state: State, own: int) -> Iterator[Step]:
    epoch = max(state[VOTE + own], state[EPOCH + own]) + 1
    agrees = any(
        state[DOWN + other]
        and reaches(state, own, other)
        and state[EPOCH + other] == state[EPOCH + own]
        for other in OTHERS[own]
    )
    if not state[DOWN + own] or not agrees or epoch > EPOCHS_MAX or _is_led(state):
        return
    after = bytearray(state)
    after[VOTE + own] = after[LED_EPOCH + own] = epoch
    after[LEADING + own], after[LEADING_FOR + own] = Leading.CANDIDATE, 0
    yield f"S{own} votes for itself in epoch {epoch}", bytes(after)


def _elect(state: State, own: int) -> Iterator[Step]:
    """A candidacy, the vote of another Sentinel and the selection, as one action."""
    for _, standing in _stand(state, own):
        for name, elected in _gather_votes(standing, own):
            for selects, selected in _select(elected, own):
                yield f"{name}; {selects}", selected


def _is_led(state: State) -> bool:
    """Whether a failover is in progress; a Sentinel that has voted begins none for a while."""
    return any(state[LEADING + sentinel] for sentinel in HOSTS)


def _gather_votes(state: State, own: int) -> Iterator[Step]:
    epoch = state[LED_EPOCH + own]
    for other in OTHERS[own]:
        free = state[VOTE + other] < epoch and state[EPOCH + other] < epoch
        if free and reaches(state, own, other):
            after = bytearray(state)
            after[VOTE + other] = epoch
            after[LEADING + own] = Leading.ELECTED
            yield f"S{other} votes for S{own}, which is elected", bytes(after)
    if state[LEADING_FOR + own] >= ELECTION:
        yield _give_up(state, own)


def _give_up(state: State, own: int) -> Step:
    after = bytearray(state)
    after[LEADING + own] = Leading.NO
    return f"S{own} aborts its failover", bytes(after)


def _select(state: State, own: int) -> Iterator[Step]:
    master = named(state, own)
    found = [node for node in OTHERS[master] if _is_eligible(state, own, node)]
    most = max((state[HAS + node] for node in found), default=0)
    for node in found:
        if state[HAS + node] == most:
            after = bytearray(state)
            after[LEADING + own], after[SELECTED + own] = Leading.SELECTED, node
            after[ORDERED + node] = 1
            yield f"S{own} selects n{node} and sends REPLICAOF NO ONE", bytes(after)
    if not found:
        yield _give_up(state, own)


def _is_eligible(state: State, own: int, node: int) -> bool:
    """Whether the Sentinel had contact with a replica lately; a pause is noticed only later."""
    if state[FOLLOWS + node] == node or state[FAULT + node] == Fault.CRASHED:
        return False
    return state[FAULT + node] == Fault.PAUSED or reaches(state, own, node)


def _promote(state: State, own: int) -> Iterator[Step]:
    node, epoch = state[SELECTED + own], state[LED_EPOCH + own]
    if not reaches(state, own, node):
        yield _give_up(state, own)
    elif state[FOLLOWS + node] == node:
        after = bytearray(state)
        after[EPOCH + own], after[MASTERS + epoch - 1] = epoch, node
        after[LEADING + own], after[LEADING_FOR + own] = Leading.PROMOTED, 0
        after[DOWN + own] = after[SILENCE + own] = 0
        yield f"S{own} learns that n{node} is master: epoch {epoch}", bytes(after)
    elif not state[ORDERED + node]:
        yield _give_up(state, own)


def _repoint(state: State, own: int) -> Iterator[Step]:
    master = state[SELECTED + own]
    left = False
    for node in OTHERS[master]:
        if state[FOLLOWS + node] not in {node, master} and reaches(state, own, node):
            left = True
            after = bytearray(state)
            _follow(after, node, master)
            yield f"S{own} re-points n{node} to n{master}", bytes(after)
    if not left:
        after = bytearray(state)
        after[LEADING + own] = Leading.NO
        yield f"S{own} ends its failover", bytes(after)


def _learn(state: State, own: int) -> Iterator[Step]:
    for other in OTHERS[own]:
        if state[EPOCH + other] > state[EPOCH + own] and reaches(state, own, other):
            epoch = state[EPOCH + other]
            after = bytearray(state)
            after[EPOCH + own] = epoch
            after[VOTE + own] = max(state[VOTE + own], epoch)
            after[DOWN + own] = after[SILENCE + own] = after[LEADING + own] = 0
            yield f"S{own} learns of epoch {epoch} from S{other}", bytes(after)


def _correct(state: State, own: int) -> Iterator[Step]:
    """Makes a node follow the master if it does not, unless a failover is in progress."""
    master = named(state, own)
    if state[FOLLOWS + master] != master or not reaches(state, own, master):
        return
    for node in OTHERS[master]:
        if state[FOLLOWS + node] == master or not reaches(state, own, node):
            continue
        if not _is_being_promoted(state, node):
            after = bytearray(state)
            _follow(after, node, master)
            yield f"S{own} makes n{node} follow n{master}", bytes(after)


def _is_being_promoted(state: State, node: int) -> bool:
    return any(
        state[LEADING + sentinel] == Leading.SELECTED
        and state[SELECTED + sentinel] == node
        and reaches(state, sentinel, node)
        for sentinel in HOSTS
    )


def is_over(state: State, faults: Faults) -> bool:
    """Whether the faults have no effect left.

    Another fault from here on is one of a healthy store, with which a search begins.
    """
    if any(state[FAULT : FAULT + 3]) or any(state[LEADING : LEADING + 3]):
        return False
    if any(state[ORDERED : ORDERED + 3]) or any(state[DOWN : DOWN + 3]):
        return False
    if not state[FAULTS_USED] or len(set(state[EPOCH : EPOCH + 3])) > 1:
        return False
    if state[FAULTS_USED] == len(faults.kinds):
        return True
    master = named(state, 0)
    return all(
        state[FOLLOWS + node] == master and state[HAS + node] == state[HAS + master]
        for node in HOSTS
    )


# Time --------------------------------------------------------------------------------------


def may_tick(state: State) -> bool:
    """Whether no action has to happen first."""
    return not any(
        runs(state, host)
        and (
            (_may_obey(state, host) and state[FAULT + host] != Fault.ISOLATED)
            or (state[FOLLOWS + host] == host and any(_notice(state, host)))
            or not _sentinel_may_wait(state, host)
        )
        for host in HOSTS
    )


def _sentinel_may_wait(state: State, own: int) -> bool:
    if state[DOWN + own] and state[DOWN_FOR + own] >= PING:
        return not reaches(state, own, named(state, own))
    leading = state[LEADING + own]
    if leading == Leading.CANDIDATE:
        return state[LEADING_FOR + own] < ELECTION
    if leading == Leading.PROMOTED:
        return state[LEADING_FOR + own] < REPOINT or not any(_repoint(state, own))
    return True


def tick(state: State) -> bytearray:
    """Advances the Sentinels' clocks by one tick; a paused one stands still."""
    after = bytearray(state)
    for own in HOSTS:
        if not runs(state, own):
            continue
        hears = reaches(state, own, named(state, own))
        after[SILENCE + own] = 0 if hears else min(DOWN_AFTER, state[SILENCE + own] + 1)
        if state[DOWN + own] and hears:
            after[DOWN_FOR + own] = min(PING, state[DOWN_FOR + own] + 1)
        if state[LEADING + own] == Leading.CANDIDATE:
            after[LEADING_FOR + own] = min(ELECTION, state[LEADING_FOR + own] + 1)
        elif state[LEADING + own] == Leading.PROMOTED:
            after[LEADING_FOR + own] = min(REPOINT, state[LEADING_FOR + own] + 1)
    return after
