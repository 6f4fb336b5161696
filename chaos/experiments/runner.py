"""One run, from its start to its verdict.

    start → load → fault → heal → drain → collect → check → report

The history is on disk before anything is checked, also when the run is interrupted; what was not
reached is missing then, and the verdict UNKNOWN at best.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from redis.asyncio import Redis
from rich.console import Console

from chaos.checker.judge import Judgement, judge, write_results
from chaos.clusters import ClusterError
from chaos.clusters.resp import ReplyError
from chaos.experiments.collect import collect_final, write_journal
from chaos.experiments.deployment import Deployment, Needs, open_deployment
from chaos.experiments.fault_recorder import PROBE_TOPIC, FaultRecorder
from chaos.experiments.plan import RunPlan, save_plan, saved_bounds
from chaos.experiments.progress import Progress, shown
from chaos.experiments.scenarios import Scenario, scenario
from chaos.experiments.timers import HOPS, timers
from chaos.experiments.watch import Watch
from chaos.faults.nemesis import Schedule, play
from chaos.history.operations import PhaseNote, RetrySettings, RunNote, TopicSettings
from chaos.history.run_folder import Run
from chaos.history.writer import HistoryWriter
from chaos.report.junit import write_junit
from chaos.report.page import write_report
from chaos.workloads import WORKLOADS, Workload
from chaos.workloads.client_pool import ClientPool
from ddq import __version__
from ddq.client import Client, Durability, RetryPolicy
from ddq.client import TopicSettings as ClientSettings
from ddq.errors import RollbackDetected

RUNS = Path("chaos/runs")
WARM_UP_S = 1.0
TAIL_S = 1.0
HEALTH_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 90.0
POLICY = RetrySettings(max_attempts=6, initial_backoff_ms=100, max_backoff_ms=1_000)
SERVED_SHARE = 0.95
OPERATIONS_SHARE = 0.3
"""Of what producers would start at their rate: faults, and this machine, take the rest."""


@dataclass(slots=True)
class _Story:
    """What a run learns of itself beside its history.

    Attributes:
        problems: each makes the verdict UNKNOWN at best.
        played: every schedule that was begun.
    """

    problems: list[str] = field(default_factory=list)
    played: list[Schedule] = field(default_factory=list)


def new_folder(plan: RunPlan, runs: Path = RUNS) -> Path:
    """A folder for a run, made."""
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    folder = runs / f"{stamp}-{plan.name}"
    folder.mkdir(parents=True)
    return folder


async def perform(plan: RunPlan, folder: Path, console: Console) -> list[str]:
    """Everything up to the check; returns what went wrong with the run itself.

    Raises:
        ClusterError: the place could not be made, or did not do what it was asked for.
    """
    run, told = Run(folder), scenario(plan.scenario)
    workload = WORKLOADS[plan.workload or told.workload]
    gates = _gates(plan, told)
    story = _Story()
    progress = Progress(f"{plan.name}: {told.guards}")
    save_plan(run.schedule, plan, gates, [])
    async with (
        timers(folder) as measured,
        open_deployment(plan, folder, Needs(told.needs, told.links)) as deployment,
        _clients(deployment) as clients,
        shown(progress, console),
    ):
        for line in deployment.missing:
            console.print(f"not available here: {line}", highlight=False, soft_wrap=True)
        await _check_health(deployment)
        await _make_topics(clients[0], plan, workload)
        with HistoryWriter(run.history) as writer:
            crowd = ClientPool(
                workload, writer, clients, seed=f"{plan.scenario}/{plan.seed}", rate=plan.rate
            )
            writer.note("harness", "run", _run_note(plan, workload, crowd.topics))
            progress.done = lambda: writer.events // 2
            progress.unknown = lambda: crowd.unknowns
            async with _watched(deployment, writer, progress):
                drained = await _live(
                    plan, told, deployment, clients, crowd, writer, progress, story
                )
        progress.phase = "collect"
        await _collect(run, deployment, crowd.sound, workload, crowd.topics, drained=drained)
        late_ms = measured.late_ms()
        console.print(
            f"this machine's timers are {late_ms} ms late at p99.9; G6 when healthy allows for it "
            f"{HOPS} times",
            highlight=False,
        )
        save_plan(run.schedule, plan, gates, story.played, late_ms)
    return story.problems


async def _live(  # noqa: PLR0917 - the parts of one story
    plan: RunPlan,
    told: Scenario,
    deployment: Deployment,
    clients: Sequence[Client],
    crowd: ClientPool,
    writer: HistoryWriter,
    progress: Progress,
    story: _Story,
) -> bool:
    """Load, fault, heal, drain. Whether it was drained."""

    def enter(phase: str) -> None:
        progress.phase = phase
        writer.note("harness", "phase", PhaseNote(phase))

    async with crowd.at_work():
        enter("load")
        await asyncio.sleep(WARM_UP_S)
        enter("fault")
        async with asyncio.TaskGroup() as probes:
            faulting = FaultRecorder(writer, progress, clients, probes)
            await _fault(plan, told, deployment, faulting, story)
            enter("heal")
            crowd.load.healed = True
            await faulting.probe()
        story.problems += [
            f"{name} is not available here: {why}" for name, why in faulting.not_available.items()
        ]
        story.problems += [
            f"{name} did not happen: {why}" for name, why in faulting.did_not_happen.items()
        ]
        story.problems += faulting.unserved
        try:
            await _check_health(deployment)
        except ClusterError as error:
            story.problems.append(f"not healthy after it was healed: {error}")
        await asyncio.sleep(TAIL_S)
        enter("drain")
        await crowd.stop_producing()
        drained = await _drain(deployment, crowd, writer, story)
        enter("end")
    if not drained:
        story.problems.append(f"it was not drained within {DRAIN_TIMEOUT_S:g} s")
    return drained


async def _drain(
    deployment: Deployment, crowd: ClientPool, writer: HistoryWriter, story: _Story
) -> bool:
    """Whether it came to its end; where ddq refuses to go on, an operator's reset comes first."""
    try:
        return await crowd.drain(DRAIN_TIMEOUT_S)
    except RollbackDetected as error:
        story.problems.append(f"reset by `ddq store accept-rollback`, since {error}")
        writer.note("operator", "phase", PhaseNote("accept-rollback"))
        await deployment.system.accept_rollback()
    return await crowd.drain(DRAIN_TIMEOUT_S)


async def _fault(
    plan: RunPlan, told: Scenario, deployment: Deployment, faulting: FaultRecorder, story: _Story
) -> None:
    """Plays schedules until the time is over; at least one."""
    began_s = time.monotonic()
    for schedule in plan.schedules or _drawn(plan, told, deployment):
        story.played.append(schedule)
        save_plan(Run(deployment.folder).schedule, plan, _gates(plan, told), story.played)
        early: list[str] = []
        try:
            await play(schedule, deployment.context, faulting.tell)
        except* (ClusterError, ReplyError, OSError) as errors:
            early = [f"the faults ended early: {error}" for error in leaves(errors)]
        story.problems += early
        if early:
            break
        if not plan.schedules and time.monotonic() - began_s >= plan.duration_s:
            break


def _drawn(plan: RunPlan, told: Scenario, deployment: Deployment) -> list[Schedule]:
    return [
        told.schedule(
            plan.seed + 1_000 * again, plan.down_after_ms, plan.mode,
            lambda kind, target: kind.unavailable(deployment.context, target) is None,
        )
        for again in range(1_000 if plan.duration_s else 1)
    ]  # fmt: skip


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The errors of a group, without its groups."""
    return [
        leaf
        for error in group.exceptions
        for leaf in (leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


@contextlib.asynccontextmanager
async def _watched(
    deployment: Deployment, writer: HistoryWriter, progress: Progress
) -> AsyncIterator[None]:
    watch = asyncio.create_task(Watch(deployment, writer, progress).run(), name="chaos watch")
    try:
        yield
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch


@contextlib.asynccontextmanager
async def _clients(deployment: Deployment) -> AsyncIterator[list[Client]]:
    """One client for each API, which goes to the next one when its own is away."""
    async with contextlib.AsyncExitStack() as stack:
        addresses = deployment.addresses
        orders = [addresses[n:] + addresses[:n] for n in range(len(addresses))]
        yield [
            await stack.enter_async_context(Client(f"ipv4:{','.join(order)}")) for order in orders
        ]


async def _check_health(deployment: Deployment) -> None:
    """The store in sync, every API serving; ClusterError if not in time."""
    await deployment.cluster.wait_until_in_sync(HEALTH_TIMEOUT_S)
    await deployment.system.wait_until_serving(HEALTH_TIMEOUT_S)


async def _make_topics(client: Client, plan: RunPlan, workload: Workload) -> None:
    durability = Durability[plan.mode.value.upper()]
    settings = ClientSettings(
        default_retry_policy=RetryPolicy(
            POLICY.max_attempts,
            timedelta(milliseconds=POLICY.initial_backoff_ms or 0),
            timedelta(milliseconds=POLICY.max_backoff_ms or 0),
        ),
        durability=durability,
        journal=True,
    )
    for n in range(workload.topics):
        await client.create_topic(
            f"{workload.name}{n + 1}", shards=workload.shards, settings=settings
        )
    await client.create_topic(PROBE_TOPIC, settings=ClientSettings(durability=durability))


def _run_note(plan: RunPlan, workload: Workload, topics: list[str]) -> RunNote:
    policy = RetrySettings(
        POLICY.max_attempts, POLICY.initial_backoff_ms, POLICY.max_backoff_ms, 2.0, 0.1
    )
    settings = TopicSettings(workload.shards, policy, durability=plan.mode.value, journal=True)
    return RunNote(
        wall_ms=time.time_ns() // 1_000_000,
        topics=dict.fromkeys(topics, settings),
        scenario=plan.scenario,
        seed=plan.seed,
        version=__version__,
        durability=plan.mode.value,
        command=plan.command,
    )


def _gates(plan: RunPlan, told: Scenario) -> dict[str, float]:
    """What this run has to meet to prove anything."""
    length_s = max(plan.duration_s, told.duration_s)
    return {
        "operations": round(plan.rate * length_s * OPERATIONS_SHARE),
        "faults verified": 1,
        "operations during faults": 10,
        "served share when healthy": SERVED_SHARE,
        **({"failovers": told.failovers} if told.failovers else {}),
        **told.gates,
    }


async def _collect(
    run: Run,
    deployment: Deployment,
    client: Client,
    workload: Workload,
    topics: list[str],
    *,
    drained: bool,
) -> None:
    """The surviving journal and what is left, from the master that everybody agrees on."""
    run.write_final(await collect_final(client, topics, drained=drained))
    master = await deployment.cluster.wait_for_master()
    async with Redis(host=master.ip, port=master.port) as store:
        await write_journal(run.journal, store, dict.fromkeys(topics, workload.shards))


def conclude(plan: RunPlan, folder: Path, problems: list[str]) -> Judgement:
    """Check and report: of what is on disk, however far the run came."""
    run = Run(folder)
    judgement = judge(run, saved_bounds(run.schedule))
    results = judgement.results
    results.problems += problems
    if problems and results.verdict == "VALID":
        results.verdict = "UNKNOWN"
    write_results(run, results)
    write_report(run, judgement)
    write_junit(folder / "junit.xml", plan.name, results)
    return judgement


__all__ = ["RUNS", "conclude", "leaves", "new_folder", "perform"]
