"""Level 3 without a fault: how leadership moves between schedulers; no safety depends on it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from unittest import mock

import pytest

from ddq.scheduler import Scheduler
from ddq.scheduler.table import rank
from ddq.store.scheduler_api import Leadership
from tests.stateful.clients import Client
from tests.stateful.quiet import QuietSimulation, quiet
from tests.stateful.simulation import SETTINGS, START_MS, Simulation

LEASE_S = SETTINGS.leader_lease_ms / 1_000
LATE_MAX_MS = 3
INTERVAL_S = 0.01


def busy(it: QuietSimulation, name: str, count: int) -> None:
    """A task is due every now and then, so that the shard always has a leader."""
    client = Client(it.simulation, it.exchanges, name)

    async def produce() -> None:
        for number in range(count):
            await client.enqueue(f"{name}{number}", 5)
            await asyncio.sleep(INTERVAL_S)

    it.simulation.spawn(produce(), name)


def start(it: QuietSimulation, number: int) -> asyncio.Event:
    """Runs one of the schedulers; it stops when the event is set."""
    stop = asyncio.Event()
    it.simulation.spawn(it.scheduler(number).run(stop), f"scheduler{number}")
    return stop


def held(it: QuietSimulation, number: int) -> Leadership | None:
    """What a scheduler believes to lead the shard by."""
    (shard,) = it.scheduler(number)._table.shards.values()
    return shard.leadership


def leader(it: QuietSimulation) -> int:
    """Which scheduler leads by what the store says."""
    nonce = it.simulation.cluster.client("one").hget(it.simulation.shard.key("control"), "nonce")
    leaders = [n for n in (1, 2) if (by := held(it, n)) is not None and by.nonce == nonce]
    assert len(leaders) == 1, "G12 one leader"
    return leaders[0]


def outranking(it: QuietSimulation) -> int:
    """Which of the two has the higher rank on the shard."""
    return max(
        (1, 2), key=lambda number: rank(it.scheduler(number)._table._name, it.simulation.shard)
    )


@pytest.mark.parametrize("first", [1, 2])
def test_a_busy_shard_goes_to_who_outranks_its_leader_and_stays_there(
    stateful_socket: str, first: int
) -> None:
    """With many shards each scheduler outranks the others on its part of them."""
    with quiet(stateful_socket, first, schedulers=2) as it:
        start(it, first)
        busy(it, "early", 50)
        it.run_until(0.1)
        start(it, 3 - first)
        it.run_until(0.1 + LEASE_S / 2)
        assert leader(it) == first, "who has just started takes no shard from another"
        it.run_until(0.6)
        assert leader(it) == outranking(it)
        entries = it.journal()
        promoted = [entry for entry in entries if entry.op == "promote"]
        assert len(promoted) == 50
        assert len({entry.epoch for entry in promoted}) == 1 + (first != outranking(it))
        late_ms = [entry.at_ms - entry.due_ms for entry in promoted]
        assert max(late_ms) <= LATE_MAX_MS, f"G6 bounded lateness: {late_ms}"


@pytest.mark.parametrize("seed", range(20))
def test_a_leader_that_stops_hands_over_at_once(stateful_socket: str, seed: int) -> None:
    """The other one does not wait for the lease to run out, though a reply said when that is: also
    if nothing is due then, and if the hint comes before the reply that says so."""
    with quiet(stateful_socket, seed, schedulers=2) as it:
        stops = {number: start(it, number) for number in (1, 2)}
        busy(it, "task", 60)
        now_s = 0.3
        it.run_until(now_s)
        old = leader(it)
        asked = (f"scheduler{3 - old}", "acquire")
        before = it.ran[asked]
        while it.ran[asked] == before:
            now_s += 0.001
            it.run_until(now_s)
        # A reply has just asked it to come back in a lease.
        stops[old].set()
        it.run_until(now_s + LEASE_S / 2)
        assert leader(it) == 3 - old
        it.run_until(1.0)
        late_ms = [e.at_ms - e.due_ms for e in it.journal() if e.op == "promote"]
        assert len(late_ms) == 60
        assert max(late_ms) <= LATE_MAX_MS, f"G6 bounded lateness: {late_ms}"


def test_a_scheduler_that_does_not_lead_asks_once_a_lease(stateful_socket: str) -> None:
    """Not at each task that becomes due: else each scheduler costs as much as the leader."""
    with quiet(stateful_socket, 0, schedulers=2) as it:
        for number in (1, 2):
            start(it, number)
        it.run_until(0.05)
        busy(it, "task", 80)
        it.run_until(0.2)
        other = f"scheduler{3 - leader(it)}"
        before = it.ran[other, "acquire"]
        it.run_until(0.8)
        assert 1 <= it.ran[other, "acquire"] - before <= 1 + 0.6 / LEASE_S


def test_an_idle_shard_has_no_leader_and_is_taken_when_work_is_due(stateful_socket: str) -> None:
    """A leadership that is not used lapses by itself: it costs no command to keep or to give up."""
    with quiet(stateful_socket, 0, schedulers=2) as it:
        for number in (1, 2):
            start(it, number)
        it.run_until(5.0)
        assert sum(count for (_, script), count in it.ran.items() if script == "acquire") == 0
        busy(it, "task", 1)
        it.run_until(5.1)
        leader(it)
        ran = sum(it.ran.values())
        it.run_until(30.0)
        assert sum(it.ran.values()) == ran


@dataclass
class Apart:
    """The clock of a process that is off."""

    simulation: Simulation
    by_ms: int

    def now_ms(self) -> int:
        """As the process believes."""
        return self.simulation.now_ms() + self.by_ms


def test_a_scheduler_whose_clock_is_off_does_not_keep_its_shard(stateful_socket: str) -> None:
    """It could not tell what is due, and must not keep others from it: it prolongs no leadership,
    moves nothing, and is deposed when its clock is right again."""
    with quiet(stateful_socket, 0, schedulers=2) as it:
        for number in (1, 2):
            start(it, number)
        busy(it, "task", 60)
        it.run_until(0.2)
        off = leader(it)
        runner = it.scheduler(off)._store.topics._runner
        runner._clock = Apart(it.simulation, 2 * SETTINGS.max_clock_skew_ms)
        before = it.ran[f"scheduler{off}", "promote"]
        it.run_until(0.7)
        nonce = it.simulation.cluster.client("one").hget(
            it.simulation.shard.key("control"), "nonce"
        )
        other = held(it, 3 - off)
        assert other is not None
        assert other.nonce == nonce
        assert it.ran[f"scheduler{off}", "promote"] > before
        runner._clock = Apart(it.simulation, 0)
        it.run_until(1.5)
        assert leader(it) == 3 - off
        late_ms = [e.at_ms - e.due_ms for e in it.journal() if e.op == "promote"]
        assert len(late_ms) == 60
        assert max(late_ms) <= SETTINGS.leader_lease_ms + 50, f"G6 bounded lateness: {late_ms}"


def test_a_leader_goes_on_where_it_was_after_the_store_stood_still(stateful_socket: str) -> None:
    """The answer is late by more than the accepted skew, and its lease still runs: were it to
    forget by what it leads, it would be kept out by its own lease."""
    lease_ms, skew_ms, stopped_s = 30_000, 50, 0.3
    with quiet(stateful_socket, 0) as it:
        scheduler_api = it.scheduler()._store.scheduler_api
        scheduler_api._settings = replace(SETTINGS, leader_lease_ms=lease_ms)
        scheduler_api._scripts._runner._settings = replace(SETTINGS, max_clock_skew_ms=skew_ms)
        start(it, 1)
        busy(it, "task", 80)
        now_s = 0.2
        it.run_until(now_s)
        while not [stop for stop in it.simulation.stops if stop.process == "scheduler1"]:
            if not it.run_one():
                now_s = it.simulation.loop.next_timer_s() or now_s
                it.simulation.loop.move_to(now_s)
        before = held(it, 1)
        back_s = now_s + stopped_s
        it.simulation.loop.move_to(back_s)
        it.run_until(2.0)
        assert held(it, 1) == before
        promoted = [entry for entry in it.journal() if entry.op == "promote"]
        assert len(promoted) == 80
        back_ms = START_MS + round(back_s * 1_000)
        late_ms = [entry.at_ms - max(entry.due_ms, back_ms) for entry in promoted]
        assert max(late_ms) <= LATE_MAX_MS, f"G6 bounded lateness: {late_ms}"


def test_a_stopping_scheduler_leaves_the_rest_of_a_backlog_to_others(stateful_socket: str) -> None:
    """Else it would last for as long as new tasks keep coming."""
    with quiet(stateful_socket, 0) as it:
        busy(it, "task", 1)
        client = Client(it.simulation, it.exchanges, "flood")

        async def flood() -> None:
            for number in range(30):
                await client.enqueue(f"flood{number}", 0)

        it.simulation.spawn(flood(), "flood")
        it.run_until(0.05)
        stop = start(it, 1)
        promotions = 0
        while promotions < 3:
            (waits,) = it.simulation.stops
            it._run(waits)
            it._answer(0)
            it.simulation.loop.settle()
            promotions = it.ran["scheduler1", "promote"]
        stop.set()
        it.run_until(0.06)
        assert it.ran["scheduler1", "promote"] <= 5
        # A script that the store does not know yet is sent twice.
        assert it.ran["scheduler1", "resign"] in {1, 2}
        assert b"nonce" not in it.simulation.cluster.client("one").hgetall(
            it.simulation.shard.key("control")
        )


@pytest.mark.parametrize("sweep_s", [0.3, 0.7, 1.1])
def test_a_sweep_is_one_survey_and_nothing_else(stateful_socket: str, sweep_s: float) -> None:
    """Whatever the clock's fractions round to: else it asks again and again until time moves on."""
    with (
        quiet(stateful_socket, 0, schedulers=2) as it,
        mock.patch.object(Scheduler, "_sweep_s", property(lambda _: sweep_s)),
    ):
        busy(it, "task", 1)
        start(it, 1)
        it.run_until(1.0)
        before = it.ran.copy()
        for now_s in range(2, 102):
            it.run_until(float(now_s))
        ran = {script: n for (_, script), n in (it.ran - before).items()}
        assert ran.keys() == {"survey"}
        assert ran["survey"] == pytest.approx(100 / sweep_s, rel=0.03)
