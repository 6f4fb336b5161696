"""The registry fits the code, and the first two levels are not blind; `make bugs` runs it all."""

from __future__ import annotations

import contextlib

import pytest

from tests.bugs.registry import ANY, BUGS, texts_of
from tests.bugs.scenarios import scenario_of
from tests.profiles import LONG
from tests.stateful.find import find_by_simulations, find_by_steps

pytestmark = LONG


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_bug_fits_the_code(bug: object) -> None:
    """A mutation whose text is not in the code any longer would change nothing."""
    from tests.bugs.registry import Bug

    assert isinstance(bug, Bug)
    changed = texts_of(bug)
    assert changed or bug.patch or bug.durability == "fast"
    assert bug.breaks <= ANY


@pytest.mark.parametrize("name", ["nack needs no token", "counter not moved"])
def test_the_stateful_machine_is_not_blind(stateful_socket: str, name: str) -> None:
    """With the bug it goes red, by a promise that the bug breaks."""
    bug = next(bug for bug in BUGS if bug.name == name)
    found = find_by_steps(stateful_socket, texts_of(bug), 500, shrink=False)
    assert found is not None
    assert found.promise in bug.breaks


@pytest.mark.parametrize(
    "name", ["lateness rests on hints", "WAIT left out", "no rollback counter"]
)
def test_the_interleavings_are_not_blind(stateful_socket: str, name: str) -> None:
    """With the bug they go red, by a promise that the bug breaks."""
    bug = next(bug for bug in BUGS if bug.name == name)
    scenario = scenario_of(bug, bug.searches[0])
    with bug.patch() if bug.patch else contextlib.nullcontext():
        found = find_by_simulations(stateful_socket, texts_of(bug), scenario, 2_000, shrink=False)
    assert found is not None
    assert found.promise in bug.breaks
