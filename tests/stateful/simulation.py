"""Level 3: real handlers and schedulers as coroutines that stop before every store command.

A driver says what happens next: which command runs, which reply is lost after its effect, which
command never arrives, which hint is dropped or doubled, when time moves, when a replica copies,
and when the store fails over. The same choices give the same trace, to the last byte.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ddq.config import Settings
from ddq.scheduler import Scheduler
from ddq.server.notifier import ReadyNotifier
from ddq.server.service import QueueService
from ddq.store.barrier import ElectionAnswer, Timing
from ddq.store.connection import Reply
from ddq.store.hints import parse_hint
from ddq.store.keys import ShardId
from ddq.store.open import Store, open_store
from ddq.store.scripts import Script
from tests.stateful.cluster import HINT_KEY, Cluster, Node
from tests.stateful.hosts import DOWN_AFTER_S, ELECTION_S, Hosts
from tests.stateful.real import CLOCK_LUA
from tests.stateful.virtual import VirtualLoop
from tests.stateful.wires import Stop, Wire, WireTopology

START_MS = 1_000_000
FAULT_EVERY = 8
"""One choice in so many is a fault."""
LAG = 4
"""While there is something to do, a replica copies at one choice in so many."""
HASTE = 4
"""While there is something to do, time passes at one choice in so many."""
Choose = Callable[[int], int]
"""Given how many ways there are to continue, says which: 0 to n - 1."""

DATA_NODES = "one:1,two:1,three:1"
TIMING = Timing(
    window_s=0.040, settle_s=0.080, down_after_s=DOWN_AFTER_S, election_s=0.080 + ELECTION_S
)

SETTINGS = Settings(
    store_timeout_ms=400,
    promote_batch_count=1,
    leader_lease_ms=60,
    sweep_interval_ms=300,
    max_request_age_ms=10_000,
    default_request_timeout_ms=3_000,
    max_clock_skew_ms=1_000,
    barrier_keep_ms=100,
)


def simulated(texts: Mapping[str, str]) -> dict[str, str]:
    """Scripts whose clock and hints are the simulation's: otherwise the same text."""
    hints = texts["prelude/hints"]
    published = "redis.call('PUBLISH', 'ddq:hints',"
    if published not in hints:
        raise AssertionError("the prelude publishes its hints in another way now")
    registry = texts["registry"]
    return {
        **texts,
        "clock": CLOCK_LUA,
        "prelude/hints": hints.replace(published, f"redis.call('RPUSH', '{HINT_KEY}',"),
        "registry": registry.replace("redis.call('PUBLISH',", "redis.call('RPUSH',").replace(
            "'ddq:hints'", f"'{HINT_KEY}'"
        ),
    }


def _ignore(kept_revision: int) -> None:
    """Does nothing about a loss."""


class CountedEntropy:
    """Tokens that differ, and are the same in each run."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._given = 0

    def token(self, size_bytes: int) -> bytes:
        """The next token of this process, or tokens one behind the other."""
        self._given += 1
        return hashlib.shake_256(f"{self._name}:{self._given}".encode()).digest(size_bytes)

    def random(self) -> float:
        """Halfway."""
        return 0.5


@dataclass(eq=False)
class Process:
    """An API server or a scheduler."""

    name: str
    store: Store
    notifier: ReadyNotifier
    service: QueueService
    scheduler: Scheduler | None = None

    def hear(self, message: bytes) -> None:
        """Takes a hint as if it had come over the channel."""
        hint = parse_hint(message)
        if hint is not None:
            self.notifier.on_hint(hint)
            if self.scheduler is not None:
                self.scheduler.on_hint(hint)


@dataclass
class Simulation:
    """The environment of real handlers and schedulers: store, network, hosts, clock and driver.

    Args:
        durability: of the topic; schedulers wait for nothing.
    """

    socket: str
    scripts: Mapping[str, Script]
    choose: Choose
    durability: str
    faults: bool = True
    failovers_max_count: int = 0
    apis: int = 2
    rollback: bool = False
    schedulers: int = 2
    stops: list[Stop] = field(default_factory=list)
    hints: list[tuple[str, bytes]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        self.cluster = Cluster(self.socket, self.scripts)
        self.processes: dict[str, Process] = {}
        self.wires: list[Wire] = []
        self.hosts = Hosts(self.cluster, self.loop, self.failovers_max_count)
        self._behind: set[str] = set()
        self._topic_made = 0
        self._has_lost = False
        self.on_loss: Callable[[int], None] = _ignore
        self.tasks: list[asyncio.Task[None]] = []
        self.stopping = asyncio.Event()
        self.trace = hashlib.sha256()
        self.reached: set[str] = set()
        self._moving: set[str] = set()
        self._names = {
            key: script.name
            for script in self.scripts.values()
            for key in (script.sha1, script.source)
        }
        self._set_up()

    def now_ms(self) -> int:
        """The one true time: every clock of the simulation shows it."""
        return START_MS + round(self.loop.time() * 1_000)

    def elections(self, process: str) -> ElectionAnswer:
        """What the Sentinels answer about the node to which a process is connected: those whose
        host is well, of which two have voted."""
        nodes = [wire.node for wire in self.wires if wire.process == process]
        is_deposed = any(node is not None and node.name == self.cluster.deposed for node in nodes)
        if self.hosts.has_voted or is_deposed:
            return ElectionAnswer("a Sentinel has voted in a newer epoch", complete=False)
        return ElectionAnswer("", complete=self.hosts.cut is None)

    def _set_up(self) -> None:
        self.calm = True
        for number in range(self.apis + self.schedulers):
            is_scheduler = number >= self.apis
            name = f"scheduler{number - self.apis + 1}" if is_scheduler else f"api{number + 1}"
            settings = replace(
                SETTINGS,
                durability=self.durability,
                data_nodes=DATA_NODES if self.failovers_max_count else "",
            )
            topology: Any = WireTopology(self, name)
            store = open_store(
                topology, settings, scripts=self.scripts, clock=self, entropy=CountedEntropy(name)
            )
            store.router.timing = TIMING
            notifier = ReadyNotifier(store.hints)
            process = Process(name, store, notifier, QueueService(store, notifier))
            if is_scheduler:
                process.scheduler = Scheduler(store)
            self.processes[name] = process

    def start_schedulers(self) -> None:
        """They run until the simulation ends."""
        self._topic_made = len(self.cluster.nodes[self.cluster.master].log)
        for process in self.processes.values():
            if process.scheduler is not None:
                self.spawn(process.scheduler.run(self.stopping), process.name)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """An actor, which runs up to its first stop."""
        task = self.loop.create_task(work, name=name)
        self.tasks.append(task)
        self.loop.settle()
        return task

    def connect(self) -> Node:
        """Where a new connection leads: discovery may still name the deposed master."""
        deposed = self.cluster.deposed
        if deposed is not None and not self.calm and self._pick(["new", "deposed"]) == "deposed":
            return self.cluster.nodes[deposed]
        return self.cluster.nodes[self.cluster.master]

    # The driver ----------------------------------------------------------------------------

    def _pick(self, ways: Sequence[Any]) -> Any:
        return ways[self.choose(len(ways))] if len(ways) > 1 else ways[0]

    def step(self) -> bool:
        """One thing happens; False when nothing can."""
        ways = self.ways()
        if not ways:
            return False
        name, act = self._pick(ways)
        self.record(name)
        act()
        self.loop.settle()
        return True

    def ways(self) -> list[tuple[str, Callable[[], None]]]:
        """What may happen next. The first is what happens when nothing goes wrong."""
        if not self.calm and self.faults and self.choose(FAULT_EVERY) == FAULT_EVERY - 1:
            return self.fault_ways()
        ways: list[tuple[str, Callable[[], None]]] = []
        ways += [
            (f"run {self.describe(stop)}", partial(self.run, stop))
            for stop in self.stops
            if self.can_answer(stop)
        ]
        if self.calm and ways:
            return ways[:1]
        for position, (process, _) in enumerate(self.hints):
            ways.append((f"hint to {process}", partial(self.deliver_hint, position)))
        if self.calm and ways:
            return ways[:1]
        if self.calm or not ways or self.choose(LAG) == LAG - 1:
            ways += self.replication_ways()
        timer_s = self.loop.next_timer_s()
        if timer_s is not None and (not ways or self.calm or self.choose(HASTE) == HASTE - 1):
            ways.append(("time passes", partial(self.loop.move_to, timer_s)))
        return ways[:1] if self.calm else ways

    def can_answer(self, stop: Stop) -> bool:
        """WAIT answers when enough replicas have the write, or when its time is over; who is paused
        answers nothing."""
        if self.hosts.frozen and stop.node.name == self.hosts.cut:
            return False
        if stop.command[0] != "WAIT" or self.loop.time() >= stop.until_s:
            return True
        return self.cluster.acked(stop.node, stop.connection.position) >= int(stop.command[1])

    def replication_ways(self) -> list[tuple[str, Callable[[], None]]]:
        """Each link copies all that it lacks, or one command: a prefix is what a replica has."""
        ways: list[tuple[str, Callable[[], None]]] = []
        for node, name in self.cluster.lagging():
            if self.hosts.cut in {node.name, name} or name in self._behind:
                continue
            for what, number in (("all", len(node.log)), ("one command", 1)):
                ways.append(
                    (
                        f"{name} copies {what} from {node.name}",
                        partial(self.cluster.catch_up, node, name, number),
                    )
                )
        return ways

    def fault_ways(self) -> list[tuple[str, Callable[[], None]]]:
        ways: list[tuple[str, Callable[[], None]]] = []
        for stop in self.stops:
            ways.append((f"reply lost {self.describe(stop)}", partial(self._lose_reply, stop)))
            ways.append(
                (f"never arrives {self.describe(stop)}", partial(self.break_connection, stop))
            )
        for position, (process, _) in enumerate(self.hints):
            ways.append((f"hint dropped {process}", partial(self._drop_hint, position)))
            ways.append((f"hint doubled {process}", partial(self._double_hint, position)))
        ways.append(("scripts flushed", self.cluster.flush_scripts))
        cluster = self.cluster
        if self.rollback:
            if not self._has_lost:
                ways.append(("ALL NODES LOSE THEIR TAIL", self._lose_tail))
            return ways
        if self.failovers_max_count:
            for name in cluster.nodes[cluster.master].replicas:
                if name in self._behind:
                    ways.append((f"{name} copies again", partial(self._behind.discard, name)))
                else:
                    ways.append((f"{name} FALLS BEHIND", partial(self._behind.add, name)))
        if cluster.deposed is not None:
            ways.append(("old master learns", self._heal))
            if cluster.nodes[cluster.deposed].replicas:
                ways.append(("replica re-pointed", cluster.repoint))
        elif self.durability == "quorum":
            ways += self.hosts.ways()
        elif cluster.failovers < self.failovers_max_count:
            ways += [
                (f"FAILOVER to {name}", partial(cluster.fail_over, name))
                for name in cluster.nodes[cluster.master].replicas
            ]
        return ways

    def _lose_tail(self) -> None:
        """Down to a prefix that still has the topic."""
        master = self.cluster.nodes[self.cluster.master]
        kept = self._topic_made + self.choose(len(master.log) - self._topic_made + 1)
        for node in self.cluster.nodes.values():
            for stop in [stop for stop in self.stops if stop.node is node]:
                self.break_connection(stop)
            for wire in self.wires:
                wire.die(node)
        self.cluster.lose_tail(kept)
        sequence = self.cluster.client(self.cluster.master).hget(
            self.shard.key("control"), "sequence"
        )
        self._has_lost = True
        self.on_loss(int(sequence or 0))

    def run(self, stop: Stop) -> Reply:
        reply = self.execute(stop)
        stop.done.set_result(reply)
        return reply

    def execute(self, stop: Stop) -> Reply:
        self.stops.remove(stop)
        if stop.command[0] == "WAIT":
            reply: Reply = self.cluster.acked(stop.node, stop.connection.position)
        else:
            before = len(stop.node.log)
            reply, hints = self.cluster.run(stop.node, stop.command, self.now_ms())
            if len(stop.node.log) > before:
                stop.connection.position = len(stop.node.log)
            for message in hints:
                self.hints += [(process, message) for process in self.processes]
        self._note(stop, reply)
        return reply

    def _lose_reply(self, stop: Stop) -> None:
        self.execute(stop)
        stop.done.set_exception(ConnectionError("the reply was lost"))

    def break_connection(self, stop: Stop) -> None:
        self.stops.remove(stop)
        stop.done.set_exception(ConnectionError("the connection broke"))

    def deliver_hint(self, position: int) -> None:
        process, message = self.hints.pop(position)
        self.loop.call_soon(self.processes[process].hear, message)

    def _drop_hint(self, position: int) -> None:
        self.hints.pop(position)

    def _double_hint(self, position: int) -> None:
        self.hints.append(self.hints[position])

    def _heal(self) -> None:
        deposed = self.cluster.nodes[self.cluster.deposed or ""]
        for stop in [stop for stop in self.stops if stop.node is deposed]:
            self.break_connection(stop)
        for wire in self.wires:
            wire.die(deposed)
        self.hosts.heal(deposed.name)
        self.cluster.heal()

    # The end -------------------------------------------------------------------------------

    def drain(self, until: Callable[[], bool], steps_max_count: int = 3_000) -> bool:
        """Everything heals and nothing goes wrong any more, until ``until`` holds."""
        self._behind.clear()
        self.hosts.end_faults()
        if self.cluster.deposed is not None:
            self._heal()
            self.loop.settle()
        self.calm = True
        for _ in range(steps_max_count):
            if until():
                return True
            if not self.step():
                return until()
        return until()

    def close(self) -> None:
        """Ends all actors, whatever they wait for."""
        self.stopping.set()
        for task in self.tasks:
            task.cancel()
        for process in self.processes.values():
            self.loop.create_task(process.service.close())
            for connection in process.store.router.connections().values():
                if connection._loop_task is not None:
                    connection._loop_task.cancel()
        self.loop.settle()
        problems = [
            task.exception()
            for task in self.tasks
            if task.done() and not task.cancelled() and task.exception() is not None
        ]
        self.cluster.close()
        asyncio.set_event_loop(None)
        self.loop.close()
        for problem in problems:
            assert problem is not None
            raise problem

    # What is remembered --------------------------------------------------------------------

    def record(self, line: str) -> None:
        """Adds a line to the log."""
        self.log.append(f"{self.now_ms() - START_MS:>6} ms  {line}")

    def describe(self, stop: Stop) -> str:
        """The process, script and node of a stop, for people."""
        what = self.script_of(stop) or str(stop.command[0])
        return f"{stop.process}: {what} on {stop.node.name}"

    def script_of(self, stop: Stop) -> str | None:
        """The name of the script that a stop runs; None for another command."""
        return self._names.get(str(stop.command[1])) if len(stop.command) > 1 else None

    def _note(self, stop: Stop, reply: Reply) -> None:
        command = hashlib.sha256(repr(stop.command).encode()).hexdigest()[:16]
        answer = hashlib.sha256(repr(reply).encode()).hexdigest()[:16]
        entry = (stop.process, command, answer, stop.node.name, self.now_ms())
        self.trace.update(repr(entry).encode())
        if isinstance(reply, list) and len(reply) > 4 and isinstance(reply[4], list):
            self._watch_leaders(stop, reply[4])

    def _watch_leaders(self, stop: Stop, result: list[Any]) -> None:
        """Notes which sides of the race between two schedulers were reached."""
        name = self.script_of(stop)
        if name in {"promote", "reap"} and result[0] == b"NOT_LEADER":
            self.reached.add("a deposed leader was refused")
            if stop.process in self._moving:
                self.reached.add("leader deposed in the middle of a batch")
        if name in {"promote", "reap"}:
            more = result[0] == b"OK" and 0 <= result[2] <= self.now_ms()
            (self._moving.add if more else self._moving.discard)(stop.process)
        believers = sum(
            shard.leadership is not None
            for process in self.processes.values()
            if process.scheduler is not None
            for shard in process.scheduler._table.shards.values()
        )
        if believers > 1:
            self.reached.add("two schedulers assumed that they lead")

    @property
    def shard(self) -> ShardId:
        """The only shard."""
        return ShardId("t", 0)
