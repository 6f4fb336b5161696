"""The durability matrix: every row in every mode, step by step; each step is kept as it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console

from chaos.clusters import ClusterError
from chaos.clusters.process import ShardedCluster
from chaos.clusters.resp import ReplyError
from chaos.experiments.conclude import leaves
from chaos.experiments.deployment import Deployment, Needs, open_deployment
from chaos.experiments.matrix.rows import MatrixRow
from chaos.experiments.matrix.step import StepResult, measure
from chaos.experiments.matrix.table import Cell, cells, heading, markdown
from chaos.experiments.plan import RunPlan
from chaos.faults import Mode
from ddq.client import Client
from ddq.errors import DdqError

RULE_OFF = "rule-off"
"""The seeded mutation that counts any majority: the control."""


@dataclass(frozen=True, slots=True)
class MatrixPlan:
    """What is measured.

    Attributes:
        steps: of each row; 0: as many as the row says.
        folder: where steps, table and logs are; what is in it already is not run again.
    """

    rows: Sequence[MatrixRow]
    columns: Sequence[tuple[Mode, bool]]
    folder: Path
    command: str
    steps: int = 0
    cluster: str = "process"
    down_after_ms: int = 1_000
    fsync: bool = False

    def of(self, row: MatrixRow) -> int:
        """How many steps a row has."""
        return self.steps or row.steps

    @property
    def log(self) -> Path:
        """One line per step."""
        return self.folder / "steps.jsonl"


@dataclass(frozen=True, slots=True)
class _Job:
    row: MatrixRow
    mode: Mode
    rule: bool
    number: int
    of: int

    @property
    def key(self) -> tuple[str, str, bool, int, int]:
        return (self.row.name, self.mode.value, self.rule, self.number, self.of)

    @property
    def setting(self) -> tuple[Mode, bool, bool, Needs]:
        """Jobs of one setting may follow one another on one deployment."""
        needs = Needs(self.row.needs, sharded=self.row.sharded)
        # Nothing is synchronized at FAST, and a server refuses fsync there.
        fsync = self.row.fsync and self.mode is not Mode.FAST
        return (self.mode, self.rule, fsync, needs)


async def measure_matrix(plan: MatrixPlan, console: Console) -> list[Cell]:
    """Runs what is not there yet, and writes matrix.json and matrix.md."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    done = read_steps(plan.log)
    jobs = [job for job in _jobs(plan) if job.key not in {step.key for step in done}]
    console.print(f"{len(jobs)} steps to run, {len(done)} are in {plan.log}", highlight=False)
    at = 0
    while at < len(jobs):
        at += await _run_on_one_deployment(plan, jobs[at:], done, console)
    return write_tables(plan, done)


def _jobs(plan: MatrixPlan) -> Iterator[_Job]:
    """By setting, so that as few deployments as possible are started."""
    for mode, rule in plan.columns:
        for row in sorted(plan.rows, key=lambda row: (row.sharded, row.fsync, sorted(row.needs))):
            for number in range(plan.of(row)):
                yield _Job(row, mode, rule, number, plan.of(row))


async def _run_on_one_deployment(
    plan: MatrixPlan, jobs: Sequence[_Job], done: list[StepResult], console: Console
) -> int:
    """Runs jobs until the setting changes or the cluster did not recover; returns how many."""
    mode, rule, fsync, needs = jobs[0].setting
    folder = plan.folder / "deployments" / time.strftime("%H-%M-%S")
    run = RunPlan(
        "durability-matrix",
        0,
        mode,
        fsync=plan.fsync or fsync,
        cluster=plan.cluster,
        down_after_ms=plan.down_after_ms,
        mutation="" if rule else RULE_OFF,
    )
    count = 0
    try:
        async with (
            open_deployment(run, folder, needs) as deployment,
            deployment.system.connect(failover=False) as clients,
        ):
            for job in jobs:
                if job.setting != jobs[0].setting:
                    break
                count += 1
                step = await _run_step(plan, job, deployment, clients)
                _keep(plan, done, step, console)
                if step.problem:
                    break
    except* (ClusterError, DdqError, OSError) as errors:
        problem = "; ".join(str(error) for error in leaves(errors))
        # The deployment could not be made or ended: its first step is the one that failed.
        count += 1
        job = jobs[count - 1]
        _keep(plan, done, _failed(job, problem), console)
    return count


async def _run_step(
    plan: MatrixPlan, job: _Job, deployment: Deployment, clients: Sequence[Client]
) -> StepResult:
    schedule = job.row.schedule(job.number, job.of, plan.down_after_ms)
    topic = _topic(deployment, f"matrix-{time.monotonic_ns()}")
    problem = ""
    step: StepResult | None = None
    try:
        step = await measure(deployment, clients, schedule, topic, job.mode)
        step = _named(step, job)
    except* (ClusterError, DdqError, OSError, ReplyError) as errors:
        problem = "; ".join(str(error) for error in leaves(errors))
    return step if step is not None else _failed(job, problem)


def _named(step: StepResult, job: _Job) -> StepResult:
    step.row, step.mode, step.rule = job.row.name, job.mode.value, job.rule
    step.number, step.of = job.number, job.of
    return step


def _failed(job: _Job, problem: str) -> StepResult:
    return StepResult(
        job.row.name,
        job.mode.value,
        job.rule,
        job.number,
        job.of,
        happened=False,
        problem=problem or "it failed",
    )


def _topic(deployment: Deployment, name: str) -> str:
    """A topic on the first shard of a Cluster, into which faults are injected."""
    if not isinstance(deployment.cluster, ShardedCluster):
        return name
    first = range(16_384 // len(deployment.cluster.shards))
    tries = (f"{name}-{n}" for n in range(1_000))
    return next(
        each
        for each in tries
        if deployment.cluster.slot_of(deployment.system.shard_key(each)) in first
    )


def _keep(plan: MatrixPlan, done: list[StepResult], step: StepResult, console: Console) -> None:
    done.append(step)
    with plan.log.open("ab") as log:
        log.write(msgspec.json.encode(step) + b"\n")
    where = f"{heading(Mode(step.mode), step.rule)}, {step.row}, step {step.number + 1}/{step.of}"
    if step.problem:
        outcome = f"failed: {step.problem}"
    else:
        what = "" if step.happened else " (did not happen)"
        back = f", back {step.back_s:.1f} s after the new master" if step.back_s else ""
        outcome = (
            f"{step.acked:,} acknowledged, {step.unknown} unknown, {step.lost:,} LOST, "
            f"outage {step.outage_s:.1f} s{back}{what}"
        )
    console.print(f"{where}: {outcome}", highlight=False, markup=False, soft_wrap=True)
    write_tables(plan, done)


def read_steps(log: Path) -> list[StepResult]:
    """The steps that were kept; those that failed are to be run again."""
    if not log.exists():
        return []
    steps = [msgspec.json.decode(line, type=StepResult) for line in log.read_bytes().splitlines()]
    return [step for step in steps if not step.problem]


def write_tables(plan: MatrixPlan, done: Sequence[StepResult]) -> list[Cell]:
    """matrix.json for programs, matrix.md for people."""
    found = cells(done)
    (plan.folder / "matrix.json").write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    (plan.folder / "matrix.md").write_text(markdown(found, plan.command))
    return found
