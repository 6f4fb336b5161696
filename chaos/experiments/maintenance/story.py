"""Traffic around something that an operator does, written down and judged as any run is."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import cast

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from rich.console import Console

from chaos.checker.availability import served
from chaos.clusters.process import SentinelCluster, ShardedCluster
from chaos.experiments.collect import collect_final, write_journal
from chaos.experiments.deployment import Deployment, Needs, open_deployment
from chaos.experiments.plan import RunPlan, save_plan
from chaos.experiments.progress import Progress, shown
from chaos.experiments.watch import Watch
from chaos.history.operations import FaultNote, PhaseNote, RetrySettings, RunNote, TopicSettings
from chaos.history.reader import Op, read_history
from chaos.history.run_folder import Run
from chaos.history.writer import HistoryWriter
from chaos.workloads import WORKLOADS, Workload
from chaos.workloads.client_pool import ClientPool
from ddq import __version__
from ddq.client import Client, Durability, RetryPolicy
from ddq.client import TopicSettings as ClientSettings
from ddq.errors import DdqError

POLICY = RetrySettings(6, 100, 1_000, 2.0, 0.1)
PROBE_TOPIC = "chaos-probe"
_PROBE_TIMEOUT_S = 1.0
_PROBE_PAUSE_S = 0.05
_HEALTH_TIMEOUT_S = 90.0
_DRAIN_TIMEOUT_S = 90.0
_QUIET_S = 3.0
_FIRST_FAILED = 5


@dataclass(frozen=True, slots=True)
class PlannedRun(RunPlan):
    """A run whose recipe is a program and not a schedule.

    Attributes:
        words: what runs it again, behind ``python -m chaos``.
    """

    words: str = ""

    @property
    def command(self) -> str:
        """What runs it again."""
        return f"python -m chaos {self.words}"


@dataclass(eq=False, slots=True)
class Stage:
    """What a recipe has to work with.

    Attributes:
        topics: of the traffic.
        client: beside the traffic; what it asks is no part of the history.
    """

    deployment: Deployment
    topics: list[str]
    client: Client
    writer: HistoryWriter
    console: Console
    progress: Progress
    _count: int = 0

    @contextlib.asynccontextmanager
    async def step(self, kind: str, target: str) -> AsyncIterator[None]:
        """One thing that is done; it ends when a write is acknowledged again at its durability."""
        began_s = time.monotonic()
        self._count += 1
        name = f"{target} {self._count}"
        self.progress.faults[name] = f"{kind} {target}"
        self.writer.note("operator", "fault", FaultNote(kind, name, "inject"))
        yield
        await self._until_served()
        self.progress.faults.pop(name)
        self.writer.note("operator", "fault", FaultNote(kind, name, "heal"))
        took_s = time.monotonic() - began_s
        self.console.print(f"{kind} {target}: {took_s:.1f} s", highlight=False, soft_wrap=True)

    async def _until_served(self) -> None:
        for n in range(1_000_000):
            with contextlib.suppress(DdqError):
                task_id = f"probe-{self._count}-{n}"
                await self.client.enqueue(PROBE_TOPIC, task_id=task_id, timeout_s=_PROBE_TIMEOUT_S)
                return
            await asyncio.sleep(_PROBE_PAUSE_S)

    async def check_health(self) -> None:
        """Waits until the store is in sync and every API serves; ClusterError if not in time."""
        await self.deployment.cluster.wait_until_in_sync(_HEALTH_TIMEOUT_S)
        await self.deployment.system.wait_until_serving(_HEALTH_TIMEOUT_S)

    @property
    def sentinel(self) -> SentinelCluster:
        """The store, where it has Sentinels."""
        assert isinstance(self.deployment.cluster, SentinelCluster)
        return self.deployment.cluster

    @property
    def sharded(self) -> ShardedCluster:
        """The store, where it is a Cluster."""
        assert isinstance(self.deployment.cluster, ShardedCluster)
        return self.deployment.cluster


Recipe = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Story:
    """A recipe and the traffic around it.

    Attributes:
        durabilities: of the topics, in their order; the run's where it names none.
        sharded: a Cluster, instead of Sentinel.
        beside: topics of the recipe's own, of one shard, which are no part of the history.
        fails_none: no request may fail. Where a master is killed one may: a cancel whose answer
            died with it, and that comes too late when it is repeated, has an unknown outcome.
        earlier: ddq starts as the release before this one, and the recipe upgrades it.
    """

    title: str
    recipe: Recipe
    workload: str = "patient"
    durabilities: tuple[str, ...] = ()
    sharded: bool = False
    beside: tuple[str, ...] = ()
    earlier: bool = False
    fails_none: bool = True


async def perform(story: Story, plan: PlannedRun, folder: Path, console: Console) -> list[str]:
    """Everything up to the check; returns what went wrong with the run itself.

    Raises:
        ClusterError: the place could not be made, or did not do what it was asked for.
    """
    run, workload = Run(folder), WORKLOADS[story.workload]
    progress = Progress(story.title)
    gates = {"operations": 100.0, "operations during faults": 10.0}
    save_plan(run.schedule, plan, gates, [])
    problems: list[str] = []
    async with (
        open_deployment(
            plan, folder, Needs(sharded=story.sharded, earlier=story.earlier)
        ) as deployment,
        _clients(deployment) as clients,
        shown(progress, console),
    ):
        with HistoryWriter(run.history) as writer:
            crowd = ClientPool(
                workload, writer, clients, seed=f"{plan.scenario}/{plan.seed}", rate=plan.rate
            )
            stage = Stage(deployment, crowd.topics, clients[0], writer, console, progress)
            await stage.check_health()
            await _make_topics(story, plan, workload, stage)
            progress.done = lambda: writer.events // 2
            progress.unknown = lambda: crowd.unknowns
            async with _watched(stage):
                if not await _live(story, stage, crowd):
                    problems.append(f"it was not drained within {_DRAIN_TIMEOUT_S:g} s")
        run.write_final(await collect_final(clients[0], crowd.topics, drained=not problems))
        async with _store(deployment) as store:
            await write_journal(run.journal, store, dict.fromkeys(crowd.topics, workload.shards))
    return problems


async def _live(story: Story, stage: Stage, crowd: ClientPool) -> bool:
    """Traffic, the recipe in the middle of it, drain; whether it was drained."""

    def enter(phase: str) -> None:
        stage.progress.phase = phase
        stage.writer.note("harness", "phase", PhaseNote(phase))

    async with crowd.at_work():
        enter("load")
        await asyncio.sleep(_QUIET_S)
        enter("fault")
        await story.recipe(stage)
        enter("heal")
        await stage.check_health()
        await asyncio.sleep(_QUIET_S)
        enter("drain")
        await crowd.stop_producing()
        drained = await crowd.drain(_DRAIN_TIMEOUT_S)
        enter("end")
    return drained


async def _make_topics(story: Story, plan: PlannedRun, workload: Workload, stage: Stage) -> None:
    policy = RetryPolicy(
        POLICY.max_attempts,
        timedelta(milliseconds=POLICY.initial_backoff_ms or 0),
        timedelta(milliseconds=POLICY.max_backoff_ms or 0),
    )
    of = dict(zip(stage.topics, story.durabilities, strict=False))
    for topic in stage.topics:
        durability = Durability[of.get(topic, plan.mode.value).upper()]
        settings = ClientSettings(default_retry_policy=policy, durability=durability, journal=True)
        await stage.client.create_topic(topic, shards=workload.shards, settings=settings)
    await stage.client.create_topic(
        PROBE_TOPIC, settings=ClientSettings(durability=Durability[plan.mode.value.upper()])
    )
    topics = {
        topic: TopicSettings(
            workload.shards, POLICY, durability=of.get(topic, plan.mode.value), journal=True
        )
        for topic in stage.topics
    }
    # Schedulers lead these as well, which G12 counts.
    topics |= dict.fromkeys(story.beside, TopicSettings(1, POLICY))
    note = RunNote(
        wall_ms=time.time_ns() // 1_000_000, topics=topics, scenario=plan.scenario, seed=plan.seed,
        version=__version__, durability=plan.mode.value, command=plan.command,
    )  # fmt: skip
    stage.writer.note("harness", "run", note)


@contextlib.asynccontextmanager
async def _clients(deployment: Deployment) -> AsyncIterator[list[Client]]:
    """One for each API, which goes to the next one when its own is away."""
    async with contextlib.AsyncExitStack() as stack:
        found = deployment.addresses
        orders = [found[n:] + found[:n] for n in range(len(found))]
        yield [
            await stack.enter_async_context(Client(f"ipv4:{','.join(order)}")) for order in orders
        ]


@contextlib.asynccontextmanager
async def _watched(stage: Stage) -> AsyncIterator[None]:
    watch = asyncio.create_task(
        Watch(stage.deployment, stage.writer, stage.progress).run(), name="chaos watch"
    )
    try:
        yield
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch


@contextlib.asynccontextmanager
async def _store(deployment: Deployment) -> AsyncIterator[Redis]:
    """The surviving store, whoever has which part of it."""
    node = await deployment.cluster.wait_for_master()
    if isinstance(deployment.cluster, ShardedCluster):
        async with RedisCluster(host=node.ip, port=node.port) as sharded:
            # It answers the commands of one server, each from the master that has the key.
            yield cast("Redis", sharded)
    else:
        async with Redis(host=node.ip, port=node.port) as store:
            yield store


def failed(ops: Iterable[Op]) -> list[Op]:
    """Requests that were not answered, though their callers waited to the end."""
    return [op for op in ops if served(op) is False]


def failed_lines(folder: Path) -> list[str]:
    """A line for each of the first requests of a run that failed, and how many there were."""
    history = read_history(Run(folder).history)
    ops = failed(history.ops)
    lines = [
        f"{op.op} of {op.process}, sent at {op.begin_ns / 1e9:.1f} s, failed after "
        f"{(op.closed_ns - op.begin_ns) / 1e9:.1f} s: {op.error}"
        for op in ops[:_FIRST_FAILED]
    ]
    return [*lines, f"{len(ops)} of {len(history.ops):,} requests failed"] if ops else []


__all__ = ["PlannedRun", "Stage", "Story", "failed", "failed_lines", "perform"]
