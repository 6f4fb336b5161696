"""Explores every schedule within bounds, shortest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from models.barrier import rule as client
from models.barrier import store
from models.barrier.rule import Rule
from models.barrier.state import State, initial, lost
from models.barrier.store import Faults, Step


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a search.

    Attributes:
        schedule: the shortest one that loses an acknowledged write; empty: none was found.
        states_count: the number of states that were reached.
        exhausted: whether the search was complete.
    """

    schedule: tuple[str, ...]
    states_count: int
    exhausted: bool


def search(rule: Rule, faults: Faults, states_max_count: int) -> Result:
    """Searches breadth first, from a healthy store with a settled client."""
    start = initial()
    before: dict[State, State | None] = {start: None}
    layer = [start]
    while layer:
        found: list[State] = []
        for state in layer:
            for _, after in steps(state, rule, faults):
                if after in before:
                    continue
                before[after] = state
                if lost(after):
                    return Result(_schedule(after, before, rule, faults), len(before), False)
                if not store.is_over(after, faults):
                    found.append(after)
            if len(before) > states_max_count:
                return Result((), len(before), False)
        layer = found
    return Result((), len(before), True)


def steps(state: State, rule: Rule, faults: Faults) -> Iterator[Step]:
    """All possible next steps."""
    if (at_once := next(store.prompt(state), None)) is not None:
        yield at_once
        return
    yield from store.happen(state, faults)
    yield from client.act(state, rule)
    if store.may_tick(state) and client.may_tick(state):
        after = store.tick(state)
        client.tick(after, rule)
        yield "time passes", bytes(after)


def _schedule(
    state: State, before: Mapping[State, State | None], rule: Rule, faults: Faults
) -> tuple[str, ...]:
    names: list[str] = []
    while (earlier := before[state]) is not None:
        names.append(next(name for name, after in steps(earlier, rule, faults) if after == state))
        state = earlier
    return tuple(reversed(names))
