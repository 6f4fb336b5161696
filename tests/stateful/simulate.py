"""Runs one simulation from its start to its drain, and judges it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from chaos.history.notes import FaultNote, LossNote, RunNote, TopicSettings
from chaos.history.operations import RetrySettings
from ddq.config import DEFAULTS, UNLIMITED_ATTEMPTS
from ddq.store.runner import Call
from ddq.store.scripts import Script, load_scripts, script_texts
from tests.stateful.clients import TOPIC, Client
from tests.stateful.dump import read_shard
from tests.stateful.history import Exchanges, final_of, journal_of, reads_of
from tests.stateful.judging import Evidence, require_promises, require_silence
from tests.stateful.simulation import START_MS, Choose, Simulation, simulated

STEPS_MAX_COUNT = 160
LEASE_MS = 100
IDS = ("x", "y")


@dataclass(frozen=True)
class Scenario:
    """What kind of simulation it is.

    Attributes:
        durability: of the topic: what replies wait for.
        failovers_max_count: how often the store may fork; 0: it is one node. In "quorum" the
            failovers are those of whole hosts, at the pace of a real Sentinel; else there is no
            limit on when they come.
        rollback: whether all nodes may come back without the end of what they had confirmed: a
            fault that no durability claims to survive, and that must not go unnoticed.
        faults: whether replies are lost, commands broken, hints dropped and scripts flushed.
    """

    durability: str = "quorum"
    failovers_max_count: int = 0
    faults: bool = True
    rollback: bool = False


@dataclass(frozen=True)
class SimulationResult:
    """A simulation that broke no promise: its trace, its log, and the races that it reached."""

    trace: str
    log: list[str]
    races: Counter[str]


def simulated_scripts(replace_: Mapping[str, str] | None = None) -> dict[str, Script]:
    """The scripts as level 3 runs them."""
    texts = script_texts()
    changed = {name: texts[name] for name in ("prelude/hints", "registry")}
    return load_scripts(simulated({**changed, **(replace_ or {})}))


def simulate(
    socket: str, scripts: Mapping[str, Script], scenario: Scenario, choose: Choose
) -> SimulationResult:
    """Runs a simulation by the driver's choices.

    Raises:
        PromiseBrokenError, DisagreementError: the simulation broke a promise. The last lines of
            ``error.__notes__`` are its log.
    """
    simulation = Simulation(
        socket, scripts, choose, scenario.durability, scenario.faults,
        scenario.failovers_max_count, apis=1 if scenario.rollback else 2,
        rollback=scenario.rollback,
    )  # fmt: skip
    exchanges = Exchanges(simulation.loop.time)
    try:
        try:
            run = _run_to_a_loss if scenario.rollback else _run_to_the_drain
            evidence = run(simulation, exchanges)
            races = _races(simulation, evidence)
        except AssertionError as error:
            error.add_note("\n".join(simulation.log))
            raise
        return SimulationResult(simulation.trace.hexdigest(), simulation.log, races)
    finally:
        simulation.close()


def _run_to_the_drain(simulation: Simulation, exchanges: Exchanges) -> Evidence:
    """After the faults everything heals, and a worker acks what is left."""
    clients = _start(simulation, exchanges)
    exchanges.note("driver", "fault", FaultNote("interleaving"))
    _drive(simulation, clients)
    simulation.record("everything heals")
    exchanges.note("driver", "fault", FaultNote("interleaving", phase="heal"))
    last = Client(simulation, exchanges, "last worker")
    finishing = simulation.spawn(last.finish(), "last worker")
    assert simulation.drain(lambda: all(client.done() for client in clients)), "clients hang"
    drained = simulation.drain(lambda: _all_ended(simulation))
    finishing.cancel()
    simulation.loop.settle()
    evidence = _evidence(simulation, exchanges, drained=drained)
    require_promises(evidence)
    return evidence


def _run_to_a_loss(simulation: Simulation, exchanges: Exchanges) -> Evidence:
    """The simulation ends with what the process that acknowledged the lost writes replies then."""

    def lost(kept_revision: int) -> None:
        exchanges.note("driver", "loss", LossNote(TOPIC, kept_revision))

    simulation.on_loss = lost
    _drive(simulation, _start(simulation, exchanges))
    evidence = Evidence(exchanges.history(_run_note(simulation)), None, None)
    require_silence(evidence)
    return evidence


def _start(simulation: Simulation, exchanges: Exchanges) -> list[asyncio.Task[None]]:
    """A topic, schedulers, and clients that have begun."""
    setting = simulation.spawn(make_topic(simulation), "operator")
    assert simulation.drain(lambda: setting.done() and not simulation.cluster.lagging())
    simulation.start_schedulers()
    clients = _clients(simulation, exchanges)
    simulation.calm = False
    return clients


def _drive(simulation: Simulation, clients: Sequence[asyncio.Task[None]]) -> None:
    for _ in range(STEPS_MAX_COUNT):
        if all(client.done() for client in clients) or not simulation.step():
            break


def _evidence(simulation: Simulation, exchanges: Exchanges, *, drained: bool) -> Evidence:
    """The history, what the surviving store says of it, and what is left there."""
    master = simulation.cluster.client(simulation.cluster.master)
    final = read_shard(master, simulation.shard)
    history = exchanges.history(_run_note(simulation))
    history.ops += reads_of(TOPIC, final, IDS, history)
    entries = master.xrange(simulation.shard.key("journal"))
    return Evidence(history, journal_of(TOPIC, entries), final_of(TOPIC, final, drained=drained))


def _run_note(simulation: Simulation) -> RunNote:
    durability = simulation.durability.upper()
    retention_ms = DEFAULTS.tombstone_retention_ms
    topic = TopicSettings(1, RetrySettings(), LEASE_MS, retention_ms, durability, journal=True)
    return RunNote(START_MS, {TOPIC: topic}, "simulation", durability=durability)


async def make_topic(simulation: Simulation) -> None:
    store = simulation.processes["api1"].store
    settings = replace(store.topics.default_settings, journal=True, lease_ms=LEASE_MS)
    call = Call(asyncio.get_running_loop().time() + 5.0)
    await store.topics.create(TOPIC, 1, settings, call)


def _clients(simulation: Simulation, exchanges: Exchanges) -> list[asyncio.Task[None]]:
    """A producer of two tasks, a client that cancels or moves one, a reader, and two workers."""
    producer = Client(simulation, exchanges, "producer")
    other = Client(simulation, exchanges, "canceller")
    reader = Client(simulation, exchanges, "reader")
    delays_ms = (0, 20, 60)

    async def produce() -> None:
        delay_ms = delays_ms[simulation.choose(3)]
        attempts = (3, UNLIMITED_ATTEMPTS)[simulation.choose(2)]
        await producer.enqueue("x", delay_ms, attempts)
        await producer.enqueue("y", delay_ms, max_attempts=1)
        if simulation.choose(2):
            # The same once more: nothing happens, and that has to be true.
            await producer.enqueue("x", delay_ms, attempts)

    async def read() -> None:
        for _ in range(2):
            await asyncio.sleep((0.0, 0.03, 0.1)[simulation.choose(3)])
            await reader.look(("x", "y")[simulation.choose(2)])

    async def interfere() -> None:
        await asyncio.sleep((0.0, 0.05, 0.2)[simulation.choose(3)])
        task_id = ("x", "y")[simulation.choose(2)]
        what = simulation.choose(5)
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

    workers = [Client(simulation, exchanges, f"worker{number}") for number in (1, 2)]
    return [
        simulation.spawn(produce(), "producer"),
        simulation.spawn(interfere(), "canceller"),
        simulation.spawn(read(), "reader"),
        *(simulation.spawn(worker.work(3), worker.name) for worker in workers),
    ]


def _all_ended(simulation: Simulation) -> bool:
    """Whether nothing is held that a worker could still get."""
    master = simulation.cluster.client(simulation.cluster.master)
    return not any(
        master.zcard(simulation.shard.key(root)) for root in ("tasks", "ready", "leases")
    )


def _races(simulation: Simulation, evidence: Evidence) -> Counter[str]:
    """Which sides of which races were reached; tests ask that both sides are, often."""
    races: Counter[str] = Counter()
    leases = {
        lease.token: lease
        for op in evidence.history.ops
        if op.op == "retrieve" and op.ok
        for lease in op.reply.leases
    }
    for op in evidence.history.ops:
        if op.outcome == "info":
            races["outcome unknown"] += 1
        elif op.op == "cancel":
            races["cancel came in time" if op.ok else f"cancel got {op.error}"] += 1
        elif op.op in {"ack", "extend", "nack"}:
            races[f"{op.op} {'held' if op.ok else op.error}"] += 1
        if op.op == "ack" and op.ok and (lease := leases.get(op.request.token)) is not None:
            late = op.reply.store_ms >= lease.expire_ms
            races[f"ack accepted {'after' if late else 'before'} its expiry"] += 1
    races.update(simulation.reached)
    if simulation.cluster.failovers:
        races["failover"] += 1
    return races
