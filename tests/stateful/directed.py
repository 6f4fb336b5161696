"""Simulations whose steps are given by name, because random choices seldom reach them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from ddq.store.runner import Call
from tests.stateful.clients import TOPIC, Client
from tests.stateful.history import Exchange, Exchanges
from tests.stateful.hosts import DOWN_AFTER_S
from tests.stateful.simulate import make_topic, simulated_scripts
from tests.stateful.simulation import Simulation

Ask = Callable[[Client], Coroutine[Any, Any, None]]
Patch = Callable[[], Any]


def perform(simulation: Simulation, name: str) -> None:
    """The one thing of that name happens."""
    simulation.calm = False
    for ways in (simulation.ways, simulation.fault_ways, simulation.replication_ways):
        for step, act in ways():
            if step.startswith(name):
                simulation.record(step)
                act()
                simulation.loop.settle()
                return
    raise AssertionError(f"{name!r} cannot happen now:\n" + "\n".join(simulation.log))


def repeat_of_a_lost_reply(
    socket: str, scripts: Mapping[str, str] | None
) -> tuple[Exchange, list[str]]:
    """An enqueue whose reply is lost, its repeat, and a failover to a replica that lags; the
    producer's view, and what the new master holds."""
    simulation = Simulation(
        socket, simulated_scripts(scripts), lambda _: 0, "all", failovers_max_count=1, apis=1
    )
    exchanges = Exchanges(simulation.loop.time)
    try:
        setting = simulation.spawn(make_topic(simulation), "operator")
        assert simulation.drain(lambda: setting.done() and not simulation.cluster.lagging())
        producer = Client(simulation, exchanges, "producer")
        simulation.spawn(producer.enqueue("x", 0), "producer")
        perform(simulation, "run api1: enqueue")  # The script is not in the cache yet.
        perform(simulation, "run api1: WAIT")
        perform(simulation, "reply lost api1: enqueue")
        while not any("enqueue" in simulation.describe(stop) for stop in simulation.stops):
            timer_s = simulation.loop.next_timer_s()
            assert timer_s is not None
            simulation.loop.move_to(timer_s)
            simulation.loop.settle()
        perform(simulation, "run api1: enqueue")
        with contextlib.suppress(AssertionError):
            # It does not answer while no replica has the write.
            perform(simulation, "run api1: WAIT")
        perform(simulation, "FAILOVER to two")
        held = simulation.cluster.client("two").hkeys(simulation.shard.key("payloads"))
        return exchanges.made[0], [name.decode() for name in held]
    finally:
        simulation.close()


def run_until(simulation: Simulation, task: asyncio.Task[None]) -> None:
    """Commands run at once, replicas copy at once, and time passes when there is nothing else."""
    for _ in range(2_000):
        if task.done():
            return
        runs = [stop for stop in simulation.stops if simulation.can_answer(stop)]
        copies = simulation.replication_ways()
        if runs:
            simulation.run(runs[0])
        elif copies:
            copies[0][1]()
        else:
            timer_s = simulation.loop.next_timer_s()
            assert timer_s is not None
            simulation.loop.move_to(timer_s)
        simulation.loop.settle()
    raise AssertionError("it never ends:\n" + "\n".join(simulation.log))


def ask_a_deposed_master(socket: str, ask: Ask, patch: Patch = contextlib.nullcontext) -> Exchange:
    """A task is enqueued behind a failover; then a client that is still
    connected to the old master asks. Returns what that one got before its deadline."""
    choice = [0]
    simulation = Simulation(
        socket, simulated_scripts(), lambda ways: choice[0] % ways, "quorum", failovers_max_count=1
    )
    exchanges = Exchanges(simulation.loop.time)
    try:
        with patch():
            setting = simulation.spawn(make_topic(simulation), "operator")
            assert simulation.drain(lambda: setting.done() and not simulation.cluster.lagging())
            producer, asker = (
                Client(simulation, exchanges, "producer"),
                Client(simulation, exchanges, "asker"),
            )

            # The other API process knows the topic too.
            knowing = simulation.spawn(_know_topic(simulation), "api2")
            assert simulation.drain(knowing.done)
            simulation.cluster.fail_over("two")
            simulation.cluster.repoint()
            for wire in simulation.wires:
                wire.die(simulation.cluster.nodes["one"])
            # A new connection leads to the new master now.
            simulation.calm = False
            run_until(simulation, simulation.spawn(producer.enqueue("x", 60_000), "producer"))
            assert exchanges.made[-1].ok
            choice[0] = 1
            run_until(simulation, simulation.spawn(ask(asker), "asker"))
            return exchanges.made[-1]
    finally:
        simulation.close()


def enqueued_during_an_election(
    socket: str, patch: Patch = contextlib.nullcontext
) -> tuple[Exchange, bool]:
    """The master's host is paused until a replica is selected. It is back, and the host of the
    replica, which has the leading Sentinel, is cut off; the election completes there. A producer
    enqueues at the old master, which has another replica; then the cut is over.

    Returns:
        The producer's exchange, and whether the new master has the task.
    """
    simulation = Simulation(
        socket, simulated_scripts(), lambda _: 0, "quorum", failovers_max_count=1, apis=1
    )
    exchanges = Exchanges(simulation.loop.time)
    try:
        with patch():
            setting = simulation.spawn(make_topic(simulation), "operator")
            assert simulation.drain(lambda: setting.done() and not simulation.cluster.lagging())
            perform(simulation, "master's host PAUSED")
            simulation.loop.move_to(simulation.loop.time() + 2 * DOWN_AFTER_S)
            perform(simulation, "two is SELECTED")
            perform(simulation, "master's host is back")
            perform(simulation, "host of two CUT OFF")
            perform(simulation, "two is PROMOTED")
            producer = Client(simulation, exchanges, "producer")
            run_until(simulation, simulation.spawn(producer.enqueue("x", 60_000), "producer"))
            perform(simulation, "host of two is back")
            assert simulation.cluster.master == "two"
            held = simulation.cluster.client("two").hkeys(simulation.shard.key("payloads"))
            return exchanges.made[0], b"x" in held
    finally:
        simulation.close()


async def _know_topic(simulation: Simulation) -> None:
    call = Call(asyncio.get_running_loop().time() + 5.0)
    await simulation.processes["api2"].store.topics.load(TOPIC, call)


async def read(asker: Client) -> None:
    await asker.look("x")


async def cancel(asker: Client) -> None:
    await asker.cancel("x", revoke=False)
