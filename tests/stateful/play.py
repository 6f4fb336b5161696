"""Plays one story from beginning to end, and judges it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ddq.config import UNLIMITED_ATTEMPTS
from ddq.store.runner import Call
from ddq.store.scripts import Script, load_scripts, script_texts
from tests.stateful.dump import read_shard
from tests.stateful.judge import deliveries, judge, judge_silence
from tests.stateful.story import TOPIC, Actor, History
from tests.stateful.world import Choose, World, simulated

STEPS_MAX_COUNT = 160


@dataclass(frozen=True)
class Plot:
    """What kind of story it is.

    Attributes:
        durability: of the topic: what replies wait for.
        failovers_max_count: how often the store may fork; 0: it is one node. In "quorum" the
            failovers are those of whole hosts, at the pace of a real Sentinel; else anything goes.
        rollback: whether all nodes may come back without the end of what they had confirmed: a
            fault that no durability claims, and that must not go unnoticed.
        faults: whether replies are lost, commands broken, hints dropped and scripts flushed.
    """

    durability: str = "quorum"
    failovers_max_count: int = 0
    faults: bool = True
    rollback: bool = False


@dataclass(frozen=True)
class Told:
    """A story that broke no promise: its trace, its lines, and the races it ran."""

    trace: str
    lines: list[str]
    races: Counter[str]


def simulated_scripts(replace_: Mapping[str, str] | None = None) -> dict[str, Script]:
    """The scripts as level 3 runs them."""
    texts = script_texts()
    changed = {name: texts[name] for name in ("prelude/hints", "registry")}
    return load_scripts(simulated({**changed, **(replace_ or {})}))


def play(socket: str, scripts: Mapping[str, Script], plot: Plot, choose: Choose) -> Told:
    """Tells a story by the driver's choices.

    Raises:
        PromiseBrokenError, DisagreementError: the story broke a promise. The last lines of
            ``error.__notes__`` are the story.
    """
    world = World(
        socket, scripts, choose, plot.durability, plot.faults, plot.failovers_max_count,
        apis=1 if plot.rollback else 2, rollback=plot.rollback,
    )  # fmt: skip
    history = History()
    world.moment = history.tick
    try:
        try:
            (_act_until_lost if plot.rollback else _act)(world, history)
            races = _races(world, history)
        except AssertionError as error:
            error.add_note("\n".join(world.story))
            raise
        return Told(world.trace.hexdigest(), world.story, races)
    finally:
        world.close()


def _act(world: World, history: History) -> None:
    setting = world.spawn(_make_topic(world), "operator")
    assert world.drain(lambda: setting.done() and not world.cluster.lagging())
    world.start_schedulers()
    clients = _cast(world, history)
    world.calm = False
    for _ in range(STEPS_MAX_COUNT):
        if all(client.done() for client in clients) or not world.step():
            break
    world.tell("everything heals")
    last = Actor(world, history, "last worker")
    finishing = world.spawn(last.finish(), "last worker")
    assert world.drain(lambda: all(client.done() for client in clients)), "clients hang"
    drained = world.drain(lambda: _all_ended(world))
    finishing.cancel()
    world.loop.settle()
    master = world.cluster.client(world.cluster.master)
    final = read_shard(master, world.shard)
    judge(history, final, _read_journal(master.xrange(world.shard.key("journal"))), drained=True)
    assert drained, "G6 bounded lateness: the store never came to rest"


def _act_until_lost(world: World, history: History) -> None:
    """The story ends with what the process that was told of the lost writes says afterwards."""
    setting = world.spawn(_make_topic(world), "operator")
    assert world.drain(lambda: setting.done() and not world.cluster.lagging())
    world.start_schedulers()
    clients = _cast(world, history)
    world.calm = False
    for _ in range(STEPS_MAX_COUNT):
        if all(client.done() for client in clients) or not world.step():
            break
    judge_silence(history, world.lost)


async def _make_topic(world: World) -> None:
    store = world.processes["api1"].store
    settings = replace(store.topics.default_settings, journal=True, lease_ms=100)
    call = Call(asyncio.get_running_loop().time() + 5.0)
    await store.topics.create(TOPIC, 1, settings, call)


def _cast(world: World, history: History) -> list[asyncio.Task[None]]:
    """Two tasks, who cancels or moves one, and two workers."""
    producer = Actor(world, history, "producer")
    other = Actor(world, history, "canceller")
    reader = Actor(world, history, "reader")
    delays_ms = (0, 20, 60)

    async def produce() -> None:
        delay_ms = delays_ms[world.choose(3)]
        attempts = (3, UNLIMITED_ATTEMPTS)[world.choose(2)]
        await producer.enqueue("x", delay_ms, attempts)
        await producer.enqueue("y", delay_ms, max_attempts=1)
        if world.choose(2):
            # The same once more: nothing happens, and that has to be true.
            await producer.enqueue("x", delay_ms, attempts)

    async def read() -> None:
        for _ in range(2):
            await asyncio.sleep((0.0, 0.03, 0.1)[world.choose(3)])
            await reader.look(("x", "y")[world.choose(2)])

    async def interfere() -> None:
        await asyncio.sleep((0.0, 0.05, 0.2)[world.choose(3)])
        task_id = ("x", "y")[world.choose(2)]
        what = world.choose(5)
        if what < 2:
            await other.cancel(task_id, revoke=what == 1)
        elif what == 2:
            await other.reschedule(task_id, 30)
            await other.cancel(task_id, revoke=False)
        elif what == 3:
            await other.debounce(task_id, 30, 40)
            await other.debounce(task_id, 30, 40)
        else:
            await other.enqueue(task_id, 0)

    workers = [Actor(world, history, f"worker{number}") for number in (1, 2)]
    return [
        world.spawn(produce(), "producer"),
        world.spawn(interfere(), "canceller"),
        world.spawn(read(), "reader"),
        *(world.spawn(worker.work(3), worker.name) for worker in workers),
    ]


def _all_ended(world: World) -> bool:
    """Whether nothing is held that a worker could still get."""
    master = world.cluster.client(world.cluster.master)
    return not any(master.zcard(world.shard.key(root)) for root in ("tasks", "ready", "leases"))


def _read_journal(entries: list[Any]) -> list[dict[str, Any]]:
    numbers = {"incarnation", "promotion", "epoch", "at_ms", "due_ms", "attempt", "revision"}
    return [
        {
            name.decode(): int(value)
            if name.decode() in numbers
            else value.decode(errors="replace")
            for name, value in fields.items()
        }
        for _, fields in entries
    ]


def _races(world: World, history: History) -> Counter[str]:
    """Which sides of which races the story reached; tests ask that both sides are, often."""
    races: Counter[str] = Counter()
    for event in history.events:
        if event.op == "Cancel":
            if event.ok:
                races["cancel came in time"] += 1
            elif event.error is not None:
                races[f"cancel got {event.error.reason}"] += 1
        if event.op in {"Ack", "Extend", "Nack"}:
            races[f"{event.op} {'held' if event.ok else event.error and event.error.reason}"] += 1
        if event.unknown:
            races["outcome unknown"] += 1
    leased = {d.token: d for d in deliveries(history)}
    for event in history.events:
        if event.op == "Ack" and event.ok:
            lease = leased.get(event.request.lease_token)
            if lease is not None:
                late = event.reply.receipt.store_time.ToMilliseconds() >= lease.expiry_ms
                races[f"ack accepted {'after' if late else 'before'} its expiry"] += 1
    races.update(world.reached)
    if world.cluster.failovers:
        races["failover"] += 1
    return races
