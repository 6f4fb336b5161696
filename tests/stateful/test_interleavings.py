"""Level 3: no order of events breaks a promise; and without the barrier, some do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.profiles import LONG
from tests.stateful.find import find_by_simulations, replay, shorten
from tests.stateful.simulate import Scenario, simulate, simulated_scripts

pytestmark = LONG

ONE_NODE = Scenario()
ANY_FAILOVERS = Scenario("all", failovers_max_count=2)
HOST_FAILOVERS = Scenario("quorum", failovers_max_count=2)
ROLLBACK = Scenario("all", failovers_max_count=1, rollback=True)
WITHOUT_BARRIER = Scenario("fast", failovers_max_count=1)

_BOTH_SIDES = (
    "cancel came in time",
    "cancel got TASK_FINISHED",
    "cancel got TASK_LEASED",
    "ack accepted before its expiry",
    "ack accepted after its expiry",
    "ack LEASE_LOST",
    "a deposed leader was refused",
    "two schedulers assumed that they lead",
    "leader deposed in the middle of a batch",
    "outcome unknown",
)
"""Sides of races that must all be reached, each at least RACES_MIN_COUNT times."""
RACES_MIN_COUNT = 3


def simulations(socket: str, scenario: Scenario, share: float) -> Counter[str]:
    """As many simulations as the profile allows, times ``share``; what races they reached."""
    scripts = simulated_scripts()
    races: Counter[str] = Counter()

    @settings(max_examples=max(1, round(settings().max_examples * share)))
    @given(st.randoms(use_true_random=False))
    def run(random: Random) -> None:
        races.update(simulate(socket, scripts, scenario, random.randrange).races)
        races["simulations"] += 1

    run()
    return races


def test_promises_hold_on_one_node(stateful_socket: str) -> None:
    """Lost replies, broken connections, lost hints, two schedulers: nothing breaks a promise."""
    print(simulations(stateful_socket, ONE_NODE, 1.0))


@pytest.mark.parametrize("scenario", [ANY_FAILOVERS, HOST_FAILOVERS], ids=lambda p: p.durability)
def test_promises_hold_through_failovers(stateful_socket: str, scenario: Scenario) -> None:
    """The store forks, under a barrier that waits for every replica, or for a majority while
    nothing can have happened behind its back: nothing breaks either."""
    races = simulations(stateful_socket, scenario, 1.0)
    assert races["failover"] > races["simulations"] / 4


def test_a_store_that_lost_what_it_confirmed_is_not_served(stateful_socket: str) -> None:
    """All nodes come back without the end of what they had: a server notices the loss."""
    simulations(stateful_socket, ROLLBACK, 0.4)


def test_both_sides_of_each_race_are_reached(stateful_socket: str) -> None:
    """A race of which only one side is ever run proves nothing."""
    scripts = simulated_scripts()
    races: Counter[str] = Counter()
    for seed in range(300):
        random = Random(seed)
        races.update(simulate(stateful_socket, scripts, ONE_NODE, random.randrange).races)
    for side in sorted(races):
        print(f"{races[side]:>6}  {side}")
    assert {side: races[side] for side in _BOTH_SIDES if races[side] < RACES_MIN_COUNT} == {}


@pytest.mark.parametrize("promise", ["G2", "G3", "G4"])
def test_without_the_barrier_the_promise_breaks(stateful_socket: str, promise: str) -> None:
    """A lost enqueue (G2), a double promotion (G3), a delivery after a cancel (G4): the fork that
    makes them is really there, and the judge sees it."""
    found = find_by_simulations(
        stateful_socket, None, WITHOUT_BARRIER, 2_000, shrink=False, wanted=(promise,)
    )
    assert found is not None, f"no simulation broke {promise} without the barrier"
    print(found.report)


_TRACES = """
import asyncio, sys, tempfile
from pathlib import Path
from random import Random
from tests.stateful.simulate import Scenario, simulate, simulated_scripts
scripts = simulated_scripts()
for seed in range(12):
    scenario = Scenario(("quorum", "all", "quorum")[seed % 3], (seed + 1) // 2 % 2)
    try:
        print(simulate(sys.argv[1], scripts, scenario, Random(seed).randrange).trace)
    except AssertionError as error:
        print(error)
"""


def test_same_choices_same_trace(stateful_socket: str) -> None:
    """Two processes whose sets and dicts are ordered differently run the same simulations."""
    traces = []
    for hash_seed in ("1", "4242"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", _TRACES, stateful_socket],
            env=environment,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        traces.append(done.stdout.splitlines())
    assert traces[0] == traces[1]
    assert len(set(traces[0])) == 12, "different choices must give different traces"


def test_a_simulation_is_replayed_and_shortened(stateful_socket: str) -> None:
    """The choices determine the simulation: they replay it, and can be shortened."""
    found = shorten([3, 0, 7, 1, 5], lambda choices: 7 in choices)
    assert found == [7]
    scripts = simulated_scripts()
    traces = {
        simulate(stateful_socket, scripts, ONE_NODE, replay([5, 3, 2, 7, 1, 0, 4])).trace
        for _ in range(2)
    }
    assert len(traces) == 1
