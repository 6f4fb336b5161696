"""Stories that chance takes long to tell, told by name."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from ddq.store.runner import Call
from tests.stateful.play import _make_topic, simulated_scripts
from tests.stateful.story import TOPIC, Actor, Event, History
from tests.stateful.world import DOWN_AFTER_S, World

Ask = Callable[[Actor], Coroutine[Any, Any, None]]
Patch = Callable[[], Any]


def happen(world: World, name: str) -> None:
    """The one thing of that name happens."""
    world.calm = False
    for ways in (world._ways, world._fault_ways, world._replication_ways):
        for told, act in ways():
            if told.startswith(name):
                world.tell(told)
                act()
                world.loop.settle()
                return
    raise AssertionError(f"{name!r} cannot happen now:\n" + "\n".join(world.story))


def repeat_of_a_lost_reply(
    socket: str, scripts: Mapping[str, str] | None
) -> tuple[Event, list[str]]:
    """An enqueue whose reply is lost, its repeat, and a failover to a replica that lags; the
    producer's view, and what the new master holds."""
    world = World(
        socket, simulated_scripts(scripts), lambda _: 0, "all", failovers_max_count=1, apis=1
    )
    history = History()
    try:
        setting = world.spawn(_make_topic(world), "operator")
        assert world.drain(lambda: setting.done() and not world.cluster.lagging())
        producer = Actor(world, history, "producer")
        world.spawn(producer.enqueue("x", 0), "producer")
        happen(world, "run api1: enqueue")  # The script is not in the cache yet.
        happen(world, "run api1: WAIT")
        happen(world, "reply lost api1: enqueue")
        while not any("enqueue" in world._name(stop) for stop in world.stops):
            timer_s = world.loop.next_timer_s()
            assert timer_s is not None
            world.loop.move_to(timer_s)
            world.loop.settle()
        happen(world, "run api1: enqueue")
        with contextlib.suppress(AssertionError):
            # It does not answer while nobody has the write.
            happen(world, "run api1: WAIT")
        happen(world, "FAILOVER to two")
        held = world.cluster.client("two").hkeys(world.shard.key("payloads"))
        return history.events[0], [name.decode() for name in held]
    finally:
        world.close()


def run_until(world: World, task: asyncio.Task[None]) -> None:
    """Commands run at once, replicas copy at once, and time passes when there is nothing else."""
    for _ in range(2_000):
        if task.done():
            return
        runs = [stop for stop in world.stops if world._can_answer(stop)]
        copies = world._replication_ways()
        if runs:
            world._run(runs[0])
        elif copies:
            copies[0][1]()
        else:
            timer_s = world.loop.next_timer_s()
            assert timer_s is not None
            world.loop.move_to(timer_s)
        world.loop.settle()
    raise AssertionError("it never ends:\n" + "\n".join(world.story))


def told_by_a_deposed_master(socket: str, ask: Ask, patch: Patch = contextlib.nullcontext) -> Event:
    """A task is enqueued behind a failover; then somebody who still talks to the
    old master asks. What that one was told before its deadline."""
    choice = [0]
    world = World(
        socket, simulated_scripts(), lambda ways: choice[0] % ways, "quorum", failovers_max_count=1
    )
    history = History()
    try:
        with patch():
            setting = world.spawn(_make_topic(world), "operator")
            assert world.drain(lambda: setting.done() and not world.cluster.lagging())
            producer, asker = Actor(world, history, "producer"), Actor(world, history, "asker")

            # The other API process knows the topic too.
            knowing = world.spawn(_know_topic(world), "api2")
            assert world.drain(knowing.done)
            world.cluster.fail_over("two")
            world.cluster.repoint()
            for wire in world.wires:
                wire.die(world.cluster.nodes["one"])
            # Whoever connects now is led to the new master.
            world.calm = False
            run_until(world, world.spawn(producer.enqueue("x", 60_000), "producer"))
            assert history.events[-1].ok
            choice[0] = 1
            run_until(world, world.spawn(ask(asker), "asker"))
            return history.events[-1]
    finally:
        world.close()


def enqueued_during_an_election(
    socket: str, patch: Patch = contextlib.nullcontext
) -> tuple[Event, bool]:
    """The master's host is paused until a replica is selected. It is back, and the host of the
    replica, which has the leading Sentinel, is cut off; the election completes there. A producer
    enqueues at the old master, which has another replica; then the cut is over.

    Returns:
        What the producer was told, and whether the new master has the task.
    """
    world = World(socket, simulated_scripts(), lambda _: 0, "quorum", failovers_max_count=1, apis=1)
    history = History()
    try:
        with patch():
            setting = world.spawn(_make_topic(world), "operator")
            assert world.drain(lambda: setting.done() and not world.cluster.lagging())
            happen(world, "master's host PAUSED")
            world.loop.move_to(world.loop.time() + 2 * DOWN_AFTER_S)
            happen(world, "two is SELECTED")
            happen(world, "master's host is back")
            happen(world, "host of two CUT OFF")
            happen(world, "two is PROMOTED")
            producer = Actor(world, history, "producer")
            run_until(world, world.spawn(producer.enqueue("x", 60_000), "producer"))
            happen(world, "host of two is back")
            assert world.cluster.master == "two"
            held = world.cluster.client("two").hkeys(world.shard.key("payloads"))
            return history.events[0], b"x" in held
    finally:
        world.close()


async def _know_topic(world: World) -> None:
    call = Call(asyncio.get_running_loop().time() + 5.0)
    await world.processes["api2"].store.topics.load(TOPIC, call)


async def read(asker: Actor) -> None:
    await asker.look("x")


async def cancel(asker: Actor) -> None:
    await asker.cancel("x", revoke=False)
