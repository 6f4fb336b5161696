"""Level 3 without a fault: commands take no time, so what is late was slept through (G6).

There is no sweep in here: a scheduler that neither its own knowledge nor a hint wakes sleeps on.
"""

from __future__ import annotations

import asyncio
from random import Random
from unittest import mock

import pytest

from chaos.history.journal import Entry
from ddq.store.hints import Reset
from ddq.store.runner import Call
from tests.stateful.clients import TOPIC, Client
from tests.stateful.quiet import QuietSimulation, quiet
from tests.stateful.simulation import START_MS

LATE_MAX_MS = 3
"""A scheduler wakes a millisecond behind the moment; the rest is rounding."""
LEASE_MS = 100
END_S = 1.0


def assert_on_time(entries: list[Entry], expiries_ms: dict[int, int]) -> None:
    """Each promotion when it was due, and each attempt ended when its lease was over."""
    for entry in entries:
        if entry.op == "promote":
            late_ms = entry.at_ms - entry.due_ms
            assert 0 <= late_ms <= LATE_MAX_MS, f"G6 bounded lateness: {late_ms} ms: {entry}"
        elif entry.op == "expire":
            late_ms = entry.at_ms - expiries_ms[entry.attempt]
            assert 0 <= late_ms <= LATE_MAX_MS, f"G6 bounded lateness: {late_ms} ms: {entry}"


def test_a_scheduler_remembers_times_from_replies_without_a_hint(stateful_socket: str) -> None:
    """Due times and expiries come with each answer of the store."""
    with quiet(stateful_socket, 0, hints=False) as it:
        simulation, client = it.simulation, Client(it.simulation, it.exchanges, "client")
        leases: dict[int, int] = {}

        async def lease() -> None:
            for task in await client.retrieve(LEASE_MS):
                leases[task.task.attempt] = task.lease_expire_time.ToMilliseconds()

        async def produce() -> None:
            await client.enqueue("x", 20)
            await client.enqueue("y", 60)

        simulation.spawn(produce(), "producer")
        it.run_until(0.002)
        simulation.start_schedulers()
        it.run_until(0.040)
        simulation.spawn(lease(), "worker")
        it.run_until(END_S)
        entries = it.journal()
        assert [entry.op for entry in entries] == [
            "enqueue", "enqueue", "promote", "lease", "promote", "expire", "promote",
        ]  # fmt: skip
        assert_on_time(entries, leases)
        assert entries[0].due_ms < START_MS + 40


@pytest.mark.parametrize("schedulers", [1, 2])
def test_hints_wake_a_scheduler_whatever_it_is_doing(stateful_socket: str, schedulers: int) -> None:
    """Also while it is in the middle of a visit, or another one leads."""
    for seed in range(40):
        random = Random(seed)
        with quiet(stateful_socket, seed, schedulers=schedulers) as it:
            client = Client(it.simulation, it.exchanges, "client")
            it.simulation.start_schedulers()

            async def produce(name: str, client: Client = client, random: Random = random) -> None:
                for number in range(3):
                    await asyncio.sleep(random.choice((0.0, 0.0, 0.01, 0.1)))
                    await client.enqueue(f"{name}{number}", random.choice((0, 0, 10, 100, 150)))

            for name in "ab":
                it.simulation.spawn(produce(name), name)
            it.run_until(END_S)
            entries = it.journal()
            promoted = [entry.id for entry in entries if entry.op == "promote"]
            assert len(promoted) == 6, f"G6 bounded lateness: only {promoted} are ready"
            if schedulers == 1:
                assert_on_time(entries, {})


def test_expired_leases_are_not_starved_by_a_flood(stateful_socket: str) -> None:
    """Promotion and reaping take turns: a long backlog keeps no expired lease waiting."""
    with quiet(stateful_socket, 0) as it:
        client = Client(it.simulation, it.exchanges, "client")

        async def produce(prefix: str, count: int, delay_ms: int) -> None:
            for number in range(count):
                await client.enqueue(f"{prefix}{number}", delay_ms)

        async def lease() -> None:
            await client.retrieve(LEASE_MS)

        it.simulation.spawn(produce("held", 2, 0), "producer")
        it.simulation.start_schedulers()
        it.run_until(0.01)
        it.simulation.spawn(lease(), "worker")
        it.run_until(0.02)
        # Due at the moment at which the leases expire.
        it.simulation.spawn(produce("flood", 8, 10 + LEASE_MS - 20), "producer")
        it.run_until(END_S)
        moves = [
            "flood" if entry.id.startswith("flood") else "expiry"
            for entry in it.journal()
            if entry.op == "expire" or (entry.op == "promote" and "flood" in entry.id)
        ]
        assert sorted(moves) == ["expiry"] * 2 + ["flood"] * 8
        assert "expiry" not in moves[5:], f"G6 bounded lateness: {moves}"


def _promoted(it: QuietSimulation) -> list[str]:
    return [entry.id for entry in it.journal() if entry.op == "promote"]


def test_after_lost_hints_everything_is_looked_at(stateful_socket: str) -> None:
    """As when the connection that hints come by was made again."""
    with quiet(stateful_socket, 0, hints=False) as it:
        client = Client(it.simulation, it.exchanges, "client")
        it.simulation.start_schedulers()
        it.run_until(0.01)
        it.simulation.spawn(client.enqueue("x", 0), "producer")
        it.run_until(0.05)
        assert _promoted(it) == [], "there was no hint"
        it.simulation.loop.call_soon(it.scheduler().on_hint, Reset())
        it.simulation.loop.settle()
        it.run_until(0.06)
        assert _promoted(it) == ["x"]


def test_hints_that_are_lost_during_a_visit_lead_to_another_one(stateful_socket: str) -> None:
    with quiet(stateful_socket, 0) as it:
        client = Client(it.simulation, it.exchanges, "client")
        it.simulation.start_schedulers()
        it.run_until(0.01)
        surveys = it.ran["scheduler1", "survey"]
        it.simulation.spawn(client.enqueue("x", 0), "producer")
        while not any(stop.process == "scheduler1" for stop in it.simulation.stops):
            if not it.run_one():
                timer_s = it.simulation.loop.next_timer_s()
                assert timer_s is not None
                it.simulation.loop.move_to(timer_s)
        it.simulation.loop.call_soon(it.scheduler().on_hint, Reset())
        it.simulation.loop.settle()
        it.run_until(0.02)
        assert it.ran["scheduler1", "survey"] == surveys + 1
        assert _promoted(it) == ["x"]


def test_shards_of_a_topic_that_has_gone_are_forgotten(stateful_socket: str) -> None:
    """Else they are asked for until the process ends."""
    with quiet(stateful_socket, 0) as it:
        store = it.simulation.processes["api1"].store
        it.simulation.start_schedulers()
        it.run_until(0.01)
        assert len(it.scheduler()._table.shards) == 1

        async def delete() -> None:
            call = Call(asyncio.get_running_loop().time() + 5.0)
            topic = await store.topics.require(TOPIC, call)
            assert (await store.operator_api.delete_topic(topic, call)).done

        it.simulation.spawn(delete(), "operator")
        it.run_until(0.02)
        it.simulation.loop.call_soon(it.scheduler().on_hint, Reset())
        it.simulation.loop.settle()
        it.run_until(0.03)
        assert not it.scheduler()._table.shards


def test_a_failure_after_a_success_waits_as_a_first_one(stateful_socket: str) -> None:
    """Otherwise a scheduler that has run for long would be slow to come back."""
    with quiet(stateful_socket, 0) as it:
        simulation, client = it.simulation, Client(it.simulation, it.exchanges, "client")
        simulation.start_schedulers()
        it.run_until(0.01)
        began_s = 0.1
        for failures_count in (4, 1):
            simulation.loop.move_to(began_s)
            with mock.patch.object(it, "_run", it.refuse(failures_count)):
                simulation.spawn(client.enqueue(f"x{failures_count}", 0), "producer")
                it.run_until(began_s + 10)
            began_s += 10
        late_ms = {
            entry.id: entry.at_ms - entry.due_ms for entry in it.journal() if entry.op == "promote"
        }
        assert 1_400 <= late_ms["x4"] <= 1_600, "0.1 + 0.2 + 0.4 + 0.8 s"
        assert 90 <= late_ms["x1"] <= 120, f"G6 bounded lateness: {late_ms}"
