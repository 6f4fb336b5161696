"""The scenarios of level 3 in which a mutation is looked for."""

from __future__ import annotations

from tests.bugs.registry import Bug, Search
from tests.stateful.simulate import Scenario

ONE_NODE = Scenario()
ROLLBACK = Scenario("all", failovers_max_count=1, rollback=True)


def scenario_of(bug: Bug, search: Search) -> Scenario:
    """The scenario in which a search of level 3 looks for a mutation."""
    if search is Search.ONE_NODE:
        return ONE_NODE
    return ROLLBACK if search is Search.LOST_TAIL else Scenario(bug.durability, 2)
