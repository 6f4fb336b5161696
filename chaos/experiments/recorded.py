"""A run whose clients record a history, which is judged: scenarios and maintenance procedures.

The history is on disk before anything is checked, also when the run is interrupted; what was not
reached is missing then, and the verdict UNKNOWN at best.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

from redis.exceptions import RedisError
from rich.console import Console

from chaos.clusters import Cluster, ClusterError, NodeKind
from chaos.clusters.process import SentinelCluster, ShardedCluster
from chaos.experiments.deployment import Deployment, Needs, open_deployment
from chaos.experiments.fault_recorder import PROBE_TOPIC, FaultRecorder
from chaos.experiments.lifecycle import Driver, Timing, run_lifecycle
from chaos.experiments.plan import RunPlan, save_plan
from chaos.experiments.progress import Progress, shown
from chaos.experiments.timers import HOPS, timers
from chaos.experiments.topics import RETRY, create_topic, topic_settings
from chaos.experiments.watch import watching
from chaos.faults.nemesis import Schedule
from chaos.history.final import collect_final
from chaos.history.notes import PhaseNote, RunNote, TopicSettings
from chaos.history.run_folder import Run
from chaos.history.writer import HistoryWriter
from chaos.systems.ddq.processes import ProcessSystem
from chaos.workloads import Workload
from chaos.workloads.client_pool import ClientPool
from ddq import __version__
from ddq.client import Client
from ddq.errors import RollbackDetected

DRAIN_TIMEOUT_S = 90.0

OpenDeployment = Callable[[RunPlan, Path, Needs], AbstractAsyncContextManager[Deployment]]


@dataclass(frozen=True, slots=True)
class Experiment:
    """A driver, and what surrounds it.

    Attributes:
        gates: what the run has to meet to prove anything; see chaos/checker/gates.py.
        other_topics: topics of the driver's own, of one shard, which are not part of the history;
            schedulers lead these as well, which G12 counts.
        health_timeout_s: how long store and system may take to be healthy.
        allows_for_timers: whether the measured lateness of this machine's timers is added to G6's
            bound.
    """

    title: str
    driver: Driver[RecordedSession]
    workload: Workload
    gates: Mapping[str, float]
    timing: Timing
    needs: Needs = field(default_factory=Needs)
    other_topics: tuple[str, ...] = ()
    health_timeout_s: float = 60.0
    allows_for_timers: bool = False


class RecordedSession:
    """The session of a run that records a history; see ``Session``.

    Attributes:
        topics: of the recorded traffic.
        client: beside the traffic; what it asks is not part of the history.
        faults: records what the driver does.
        problems: each makes the verdict UNKNOWN at best.
        played: every schedule that was begun.
    """

    def __init__(
        self,
        experiment: Experiment,
        plan: RunPlan,
        deployment: Deployment,
        clients: Sequence[Client],
        *,
        writer: HistoryWriter,
        progress: Progress,
        console: Console,
    ) -> None:
        self.plan = plan
        self.deployment = deployment
        self.client = clients[0]
        self.console = console
        self.faults = FaultRecorder(writer, progress, clients)
        self.problems: list[str] = []
        self.played: list[Schedule] = []
        self._experiment = experiment
        self._run = Run(deployment.folder)
        self._writer = writer
        self._progress = progress
        self._workload = experiment.workload
        self._drained = False
        self._pool = ClientPool(
            experiment.workload,
            writer,
            clients,
            seed=f"{plan.scenario}/{plan.seed}",
            rate=plan.rate,
        )
        self.topics = self._pool.topics
        progress.done = lambda: writer.events // 2
        progress.unknown = lambda: self._pool.unknowns

    # The phases ------------------------------------------------------------------------------

    def enter(self, phase: str) -> None:
        """Shows the phase, and notes it in the history."""
        self._progress.phase = phase
        self._writer.note("harness", "phase", PhaseNote(phase))

    async def start(self) -> None:
        """Health, topics, and the first note of the history."""
        await self.check_health()
        settings = topic_settings(self.plan.mode, shards=self._workload.shards, journal=True)
        for topic in self.topics:
            await create_topic(
                self.client,
                topic,
                self.plan.mode,
                shards=self._workload.shards,
                retry=RETRY,
                journal=True,
            )
        await create_topic(self.client, PROBE_TOPIC, self.plan.mode)
        topics = dict.fromkeys(self.topics, settings)
        topics |= dict.fromkeys(self._experiment.other_topics, TopicSettings(1, RETRY))
        self._writer.note(
            "harness",
            "run",
            RunNote(
                wall_ms=time.time_ns() // 1_000_000,
                topics=topics,
                scenario=self.plan.scenario,
                seed=self.plan.seed,
                version=__version__,
                durability=self.plan.mode.value,
                command=self.plan.command,
                replicas=replicas_count(self.deployment.cluster),
            ),
        )

    @contextlib.asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """The client pool at work; roles and leaders are watched."""
        async with (
            watching(self.deployment, self._writer, self._progress),
            self._pool.at_work(),
        ):
            yield

    @contextlib.asynccontextmanager
    async def fault_windows(self) -> AsyncIterator[None]:
        """Windows of faults are recorded; their problems are the run's."""
        async with self.faults.windows():
            yield
        self.problems += self.faults.problems

    async def heal(self) -> None:
        """Workloads stop planning far ahead; a write is acknowledged."""
        self._pool.load.healed = True
        await self.faults.probe()

    async def settle(self) -> None:
        """Health again; a problem if it does not come back in time."""
        try:
            await self.check_health()
        except ClusterError as error:
            self.problems.append(f"not healthy after it was healed: {error}")

    async def drain(self) -> None:
        """Stops producers and drains; where ddq detects a rollback, the operator accepts it."""
        await self._pool.stop_producing()
        try:
            self._drained = await self._pool.drain(DRAIN_TIMEOUT_S)
        except RollbackDetected as error:
            self.problems.append(f"reset by `ddq store accept-rollback`, since {error}")
            self._writer.note("operator", "phase", PhaseNote("accept-rollback"))
            await self.deployment.system.accept_rollback()
            self._drained = await self._pool.drain(DRAIN_TIMEOUT_S)
        if not self._drained:
            self.problems.append(f"it was not drained within {DRAIN_TIMEOUT_S:g} s")

    async def collect(self) -> None:
        """The surviving journal and what is left, from the master that a majority names."""
        self._writer.close()
        self._progress.phase = "collect"
        shards = dict.fromkeys(self.topics, self._workload.shards)
        trimmed = await self.deployment.system.write_journal(self._run.journal, shards)
        final = await collect_final(
            self._pool.served_client, self.topics, drained=self._drained, trimmed=trimmed
        )
        try:
            final.differing = await self.deployment.system.differing_keys(shards)
        except (RedisError, OSError) as error:
            self.problems.append(f"the nodes of the store could not be compared: {error}")
        self._run.write_final(final)

    # For drivers -----------------------------------------------------------------------------

    async def check_health(self) -> None:
        """The store in sync, every API serving; ClusterError if not in time."""
        await self.deployment.cluster.wait_until_in_sync(self._experiment.health_timeout_s)
        await self.deployment.system.wait_until_serving(self._experiment.health_timeout_s)

    def begin_schedule(self, schedule: Schedule) -> None:
        """Keeps a schedule on disk before it is played."""
        self.played.append(schedule)
        save_plan(self._run.schedule, self.plan, self._experiment.gates, self.played)

    @contextlib.asynccontextmanager
    async def step(self, kind: str, target: str) -> AsyncIterator[None]:
        """One step of a procedure; it ends when a write is acknowledged again."""
        began_s = time.monotonic()
        async with self.faults.step(kind, target):
            yield
        took_s = time.monotonic() - began_s
        self.console.print(f"{kind} {target}: {took_s:.1f} s", highlight=False, soft_wrap=True)

    @property
    def ddq(self) -> ProcessSystem:
        """The system, for procedures that are ddq's own."""
        assert isinstance(self.deployment.system, ProcessSystem)
        return self.deployment.system

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


def replicas_count(cluster: Cluster) -> int:
    """How many replicas each master is configured to have."""
    data = [node for node in cluster.nodes if node.kind is NodeKind.DATA]
    return max((len(cluster.group(node)) - 1 for node in data), default=-1)


@contextlib.asynccontextmanager
async def _logging_to(file: Path) -> AsyncIterator[None]:
    """The warnings of ddq's client in this process go to a file, not over the progress."""
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("ddq")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


async def perform(
    experiment: Experiment,
    plan: RunPlan,
    folder: Path,
    console: Console,
    *,
    open_deployment: OpenDeployment = open_deployment,
) -> list[str]:
    """Everything up to the check; returns what went wrong with the run itself.

    Raises:
        ClusterError: the deployment could not be made, or did not do what it was asked for.
    """
    run, progress = Run(folder), Progress(experiment.title)
    save_plan(run.schedule, plan, experiment.gates, [])
    measuring = timers(folder) if experiment.allows_for_timers else contextlib.nullcontext()
    async with (
        measuring as measured,
        _logging_to(run.clients_log),
        open_deployment(plan, folder, experiment.needs) as deployment,
        deployment.system.connect() as clients,
        shown(progress, console),
    ):
        for line in deployment.missing:
            console.print(f"not available here: {line}", highlight=False, soft_wrap=True)
        with HistoryWriter(run.history) as writer:
            session = RecordedSession(
                experiment,
                plan,
                deployment,
                clients,
                writer=writer,
                progress=progress,
                console=console,
            )
            await run_lifecycle(session, experiment.driver, experiment.timing)
        if measured is not None:
            late_ms = measured.late_ms()
            console.print(
                f"this machine's timers are up to {late_ms} ms late; G6 when healthy allows for "
                f"it {HOPS} times",
                highlight=False,
            )
            save_plan(run.schedule, plan, experiment.gates, session.played, late_ms)
    return session.problems


__all__ = ["Experiment", "RecordedSession", "perform"]
