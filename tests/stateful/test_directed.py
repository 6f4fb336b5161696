"""Stories that chance takes long to tell, told by name: with the mistake they end badly."""

from __future__ import annotations

import contextlib

import pytest

from tests.bugs.registry import BUGS, texts_of
from tests.stateful.play import _make_topic, simulated_scripts
from tests.stateful.story import Actor, Event, History
from tests.stateful.world import World


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


def repeat_of_a_lost_reply(socket: str, scripts: dict[str, str] | None) -> tuple[Event, list[str]]:
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


def test_a_repeat_is_not_acknowledged_before_its_first_is_replicated(stateful_socket: str) -> None:
    """The repeat finds the task, on a new connection that has written nothing before."""
    event, held = repeat_of_a_lost_reply(stateful_socket, None)
    assert not event.ok
    assert held == []


def test_without_its_write_it_would_be(stateful_socket: str) -> None:
    bug = next(bug for bug in BUGS if bug.name == "dedup path does not write")
    event, held = repeat_of_a_lost_reply(stateful_socket, texts_of(bug))
    assert event.ok, "G2 no loss: the story has lost its point"
    assert held == []


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("ERROR")
