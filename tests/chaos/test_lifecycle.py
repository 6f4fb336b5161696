"""A run reaches the system under test through its protocol only: a fake queue takes ddq's place."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from chaos.checker.judge import judge
from chaos.clusters import Cluster, ClusterError, NodeKind, Role, StoreNode
from chaos.experiments.deployment import Deployment, Needs
from chaos.experiments.lifecycle import Timing
from chaos.experiments.plan import RunPlan
from chaos.experiments.recorded import Experiment, RecordedSession, perform
from chaos.faults import FaultContext, Mode, Target
from chaos.faults.nemesis import Schedule, Step, play
from chaos.history.reader import read_history
from chaos.history.run_folder import Run
from chaos.systems.protocol import FindTarget, Observation, System
from chaos.workloads import Workload
from chaos.workloads.actor import Actor, refused
from ddq.client import (
    Acked,
    Client,
    Enqueued,
    Lease,
    NewTask,
    Receipt,
    ShardStats,
    Task,
    TaskCounts,
    TaskState,
    TopicStats,
)
from ddq.errors import RollbackDetected, StoreUnreachable

PLAN = RunPlan("failover", 1, Mode.QUORUM, rate=400)


@dataclass
class FakeQueue:
    """A queue in memory: a task is ready at once, and an acked one is gone.

    Attributes:
        done: what the run has asked of the system and its processes, in order.
        up: False: every request fails.
        rollback: the next count of tasks reports that the store was rolled back.
    """

    done: list[str] = field(default_factory=list)
    up: bool = True
    rollback: bool = False
    ready: dict[str, Task] = field(default_factory=dict)
    leased: dict[str, Task] = field(default_factory=dict)
    enqueued: int = 0
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    async def _receipt(self) -> Receipt:
        await asyncio.sleep(0.001)
        if not self.up:
            raise StoreUnreachable("the fake queue is down")
        return Receipt(None, 0, b"", datetime.now(UTC))

    async def create_topic(self, name: str, **_: Any) -> None:
        self.done.append(f"create {name}")

    async def enqueue(self, topic: str, payload: bytes = b"", **given: Any) -> Enqueued:
        receipt, revision = await self._receipt(), next(self._numbers)
        task_id, now = str(given["task_id"]), datetime.now(UTC)
        task = Task(
            topic, task_id, TaskState.READY, payload, {}, revision, revision, 1, 1, 1, now, now,
            now, None, None, "", len(payload),
        )  # fmt: skip
        if topic == "fake1":
            self.ready[task_id] = task
            self.enqueued += 1
        return Enqueued(task_id, True, TaskState.READY, revision, revision, now, receipt)

    async def retrieve(self, topics: Sequence[str], **_: Any) -> list[Lease]:
        receipt = await self._receipt()
        if not self.ready:
            return []
        task_id, task = self.ready.popitem()
        self.leased[task_id] = task
        expire = datetime.now(UTC) + timedelta(seconds=30)
        token = f"token of {task_id}".encode()
        return [Lease(topics[0], task_id, token, task, expire, timedelta(seconds=30), receipt)]

    async def ack(self, lease: Lease, **_: Any) -> Acked:
        # Also while it is down: leases of this queue do not expire, so a refused one would stay.
        del self.leased[lease.id]
        return Acked(next(self._numbers), Receipt(None, 0, b"", datetime.now(UTC)))

    async def stats(self, topic: str, **_: Any) -> TopicStats:
        receipt = await self._receipt()
        if self.rollback:
            raise RollbackDetected("the fake queue was rolled back")
        ready, leased = len(self.ready), len(self.leased)
        ended = self.enqueued - ready - leased
        counts = TaskCounts(self.enqueued, 0, ready, leased, 0, ended, 0, 0, 0)
        return TopicStats(counts, (ShardStats(0, counts, 0, 0, None, None, None, 1, receipt),))

    async def list_tasks(self, topic: str, state: TaskState, **_: Any) -> AsyncIterator[Task]:
        held = {TaskState.READY: self.ready, TaskState.LEASED: self.leased}.get(state, {})
        for task in held.values():
            yield task


class FakeProcess:
    """The queue's only process."""

    name = "queue"

    def __init__(self, queue: FakeQueue) -> None:
        self._queue = queue

    async def kill(self) -> None:
        self._queue.done.append("kill")
        self._queue.up = False

    async def restart(self) -> None:
        self._queue.done.append("restart")
        self._queue.up = True

    async def pause(self) -> None:
        raise NotImplementedError

    async def resume(self) -> None:
        raise NotImplementedError

    def alive(self) -> bool:
        return self._queue.up

    def paused(self) -> bool:
        return False


class FakeSystem:
    """The fake queue as a ``System``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.queue = FakeQueue()
        self.serves = True

    async def start(self) -> None:
        self.queue.done.append("start")

    async def stop(self) -> None:
        self.queue.done.append("stop")

    async def wait_until_serving(self, timeout_s: float = 30.0) -> None:
        self.queue.done.append("wait until serving")
        if not self.serves:
            raise ClusterError("the fake queue does not serve")

    @asynccontextmanager
    async def connect(self, *, failover: bool = True) -> AsyncIterator[list[Client]]:
        self.queue.done.append("connect")
        yield [cast("Client", self.queue)] * 2

    @property
    def targets(self) -> Mapping[str, FindTarget]:
        async def process() -> Target:
            return FakeProcess(self.queue)

        return {"api": process}

    async def observe(self) -> Sequence[Observation]:
        return [Observation("queue", 1.0, {"deposed_batches_refused": 2.0})]

    async def accept_rollback(self) -> None:
        self.queue.done.append("accept rollback")
        self.queue.rollback = False

    def shard_key(self, topic: str, shard: int = 0) -> str:
        return f"fake:{topic}:{shard}"

    async def stored_ids(self, topic: str) -> set[str]:
        return set(self.queue.ready)

    async def differing_keys(self, shards: Mapping[str, int]) -> list[str]:
        return []

    async def write_journal(self, path: Path, shards: Mapping[str, int]) -> Mapping[str, list[int]]:
        self.queue.done.append(f"journal of {dict(shards)}")
        return {topic: [0] * count for topic, count in shards.items()}


class FakeCluster:
    """A store of one node, of which nothing is asked but its health."""

    unavailable: Mapping[str, str] = {}
    nodes = (StoreNode("d1", NodeKind.DATA, "h1", "127.0.0.1", 1),)

    def group(self, node: StoreNode) -> Sequence[StoreNode]:
        return [node]

    async def wait_until_in_sync(self, timeout_s: float = 30.0) -> None:
        pass

    async def master(self) -> StoreNode:
        return self.nodes[0]

    async def role(self, node: StoreNode) -> Role:
        return Role.MASTER


async def produce(actor: Actor) -> None:
    await actor.pace()
    task_id = actor.new_id()
    with refused():
        await actor.recorder.enqueue_task(actor.topic(), NewTask(task_id.encode(), task_id))


async def work(actor: Actor) -> None:
    with refused():
        for lease in await actor.recorder.retrieve(actor.load.topics):
            await actor.recorder.ack(lease)


FAKE = Workload("fake", "enqueue, retrieve, ack", produce, work, topics=1, shards=1)


async def run(folder: Path, driver: Any) -> tuple[list[str], FakeSystem]:
    """A run's problems, and the system that it ran on."""
    system = FakeSystem(folder)
    checked: System = system

    @asynccontextmanager
    async def deployed(plan: RunPlan, folder: Path, needs: Needs) -> AsyncIterator[Deployment]:
        del plan, needs
        cluster = cast("Cluster", FakeCluster())
        await checked.start()
        yield Deployment(folder, cluster, checked, FaultContext(cluster, checked.targets), [])
        await checked.stop()

    experiment = Experiment("a fake queue", driver, FAKE, {}, Timing(0.05, 0.05))
    problems = await perform(
        experiment, PLAN, folder, Console(quiet=True), open_deployment=deployed
    )
    return problems, system


async def kill_the_queue(session: RecordedSession) -> None:
    """A fault of the catalogue, which finds the process through the system's targets."""
    schedule = Schedule(((Step("kill", "api", hold_ms=20, settle=False),),), 1_000)
    await play(schedule, session.deployment.context, session.faults.record)


async def test_a_run_starts_loads_drives_heals_drains_and_collects(tmp_path: Path) -> None:
    problems, system = await run(tmp_path, kill_the_queue)
    assert problems == []
    assert system.queue.done == [
        "start", "connect", "wait until serving", "create fake1", "create chaos-probe", "kill",
        "restart", "wait until serving", "journal of {'fake1': 1}", "stop",
    ]  # fmt: skip
    history = read_history(Run(tmp_path).history)
    phases = [note.value.phase for note in history.notes if note.op == "phase"]
    assert phases == ["load", "fault", "heal", "drain", "end"]
    faults = [(note.value.kind, note.value.phase) for note in history.notes if note.op == "fault"]
    assert faults == [("kill", "inject"), ("kill", "heal")]
    metrics = {note.value.name: note.value.value for note in history.notes if note.op == "metric"}
    assert metrics["deposed_batches_refused"] == 2.0
    outcomes = {op.outcome for op in history.ops}
    assert outcomes >= {"ok", "fail"}
    verdicts = {promise.id: promise.verdict for promise in judge(Run(tmp_path)).results.promises}
    assert {verdicts[promise] for promise in ("G1", "G2", "G9", "G11")} == {"VALID"}


async def test_a_driver_may_be_a_procedure(tmp_path: Path) -> None:
    async def restart(session: RecordedSession) -> None:
        process = await session.deployment.system.targets["api"]()
        async with session.step("restart", process.name):
            await process.kill()
            await process.restart()

    problems, _ = await run(tmp_path, restart)
    assert problems == []
    history = read_history(Run(tmp_path).history)
    notes = [(note.process, note.value.target) for note in history.notes if note.op == "fault"]
    assert notes == [("operator", "queue 1")] * 2


async def test_a_rollback_that_the_system_detects_is_accepted_and_is_a_problem(
    tmp_path: Path,
) -> None:
    async def roll_back(session: RecordedSession) -> None:
        cast("FakeSystem", session.deployment.system).queue.rollback = True

    problems, system = await run(tmp_path, roll_back)
    assert len(problems) == 1
    assert "accept-rollback" in problems[0]
    assert "accept rollback" in system.queue.done
    assert Run(tmp_path).read_final() is not None


async def test_a_system_that_does_not_serve_afterwards_is_a_problem_and_is_still_collected(
    tmp_path: Path,
) -> None:
    async def break_it(session: RecordedSession) -> None:
        cast("FakeSystem", session.deployment.system).serves = False

    problems, system = await run(tmp_path, break_it)
    assert problems == ["not healthy after it was healed: the fake queue does not serve"]
    assert system.queue.done[-2:] == ["journal of {'fake1': 1}", "stop"]


async def test_an_error_of_the_driver_ends_the_run_and_leaves_its_history(tmp_path: Path) -> None:
    async def fail(_: RecordedSession) -> None:
        raise ClusterError("no such node")

    with pytest.raises(ExceptionGroup) as failed:
        await run(tmp_path, fail)
    assert failed.group_contains(ClusterError, match="no such node")
    phases = [n.value.phase for n in read_history(Run(tmp_path).history).notes if n.op == "phase"]
    assert phases == ["load", "fault"]


async def test_health_is_asked_for_only_after_a_write_is_acknowledged(tmp_path: Path) -> None:
    async def stop_for_a_moment(session: RecordedSession) -> None:
        queue = cast("FakeSystem", session.deployment.system).queue

        def restart() -> None:
            queue.up = True
            queue.done.append("up again")

        queue.up = False
        asyncio.get_running_loop().call_later(0.2, restart)

    problems, system = await run(tmp_path, stop_for_a_moment)
    assert problems == []
    done = system.queue.done
    assert done.index("up again") < len(done) - 1 - done[::-1].index("wait until serving")
