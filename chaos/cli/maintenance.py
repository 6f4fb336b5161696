"""The commands for maintenance procedures: rolling, upgrade, latency, failures, migrate."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from chaos.checker.verdict import Verdict
from chaos.cli.options import DownAfter, Rate
from chaos.clusters import ClusterError
from chaos.experiments.conclude import conclude, leaves, new_folder
from chaos.experiments.maintenance.failovers import Measured, latency
from chaos.experiments.maintenance.failures import failures
from chaos.experiments.maintenance.migration import migration
from chaos.experiments.maintenance.procedure import Procedure, ProcedurePlan, failed_lines
from chaos.experiments.maintenance.rolling import ROLLING
from chaos.experiments.maintenance.upgrade import UPGRADE
from chaos.experiments.recorded import perform
from chaos.faults import Mode
from chaos.history.reader import BadHistoryError
from chaos.report.terminal import show
from ddq.errors import DdqError

Durability = Annotated[Mode, typer.Option(help="Of every topic.")]


def run_procedure(procedure: Procedure, plan: ProcedurePlan, console: Console) -> Path:
    """Runs and judges a procedure; exits with INVALID's status if a request failed that must not.

    Returns:
        The run's folder.
    """
    folder = new_folder(plan)
    console.print(f"[bold]{plan.name}[/]  [dim]{folder}[/]", soft_wrap=True, highlight=False)
    problems: list[str] = []
    try:
        problems = asyncio.run(perform(procedure.experiment, plan, folder, console))
    except* (ClusterError, DdqError, OSError) as errors:
        problems = [f"the run failed: {error}" for error in leaves(errors)]
    try:
        results = conclude(plan, folder, problems).results
    except BadHistoryError as error:
        # It did not come as far as a history.
        raise ClusterError("; ".join([*problems, str(error)])) from None
    show(results, console)
    lines = failed_lines(folder)
    for line in lines:
        console.print(f"[red]{line}[/]", soft_wrap=True, highlight=False)
    if not lines:
        console.print("no request failed")
    if lines and procedure.fails_none:
        raise typer.Exit(Verdict.INVALID.exit_code)
    if results.exit_code:
        raise typer.Exit(results.exit_code)
    return folder


def _plan(name: str, durability: Mode, rate: float, down_after_ms: int) -> ProcedurePlan:
    arguments = f"{name} --durability {durability.value} --rate {rate:g}"
    return ProcedurePlan(
        name.partition(" ")[0],
        1,
        durability,
        rate=rate,
        down_after_ms=down_after_ms,
        arguments=f"{arguments} --down-after-ms {down_after_ms}",
    )


def rolling(
    durability: Durability = Mode.QUORUM, rate: Rate = 60.0, down_after_ms: DownAfter = 2_000
) -> None:
    """Restarts every process of ddq and of the store, one after the other, under traffic."""
    run_procedure(ROLLING, _plan("rolling", durability, rate, down_after_ms), Console())


def upgrade(rate: Rate = 60.0) -> None:
    """Upgrades servers of the previous release to this version, under traffic."""
    # Tasks that 0.1.0 holds are FAST; it has no other durability.
    plan = ProcedurePlan("upgrade", 1, Mode.FAST, rate=rate, arguments=f"upgrade --rate {rate:g}")
    run_procedure(UPGRADE, plan, Console())


def migrate(
    durability: Durability = Mode.QUORUM,
    rate: Rate = 60.0,
    down_after_ms: DownAfter = 2_000,
    atomic: Annotated[
        bool, typer.Option("--atomic", help="By CLUSTER MIGRATESLOTS, of Valkey 9 and newer.")
    ] = False,
) -> None:
    """Moves the slots of a topic's shards between the masters of a Cluster, under traffic."""
    name = "migrate --atomic" if atomic else "migrate"
    run_procedure(migration(atomic=atomic), _plan(name, durability, rate, down_after_ms), Console())


def failover_latency(
    count: Annotated[int, typer.Option(min=1, help="How often the master is killed.")] = 5,
    rate: Rate = 40.0,
    down_after_ms: DownAfter = 2_000,
) -> None:
    """Measures how long a failover interrupts each operation at each durability."""
    console, measured = Console(), Measured()
    name = f"latency --count {count}"
    try:
        run_procedure(
            latency(count, measured), _plan(name, Mode.QUORUM, rate, down_after_ms), console
        )
    finally:
        console.print(measured.table())
        console.print(f"{len(measured.elected_ms)} failovers, load {os.getloadavg()[0]:.1f}")


def each_failure(
    rate: Rate = 20.0,
    down_after_ms: DownAfter = 2_000,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this failure, by its name in the table.")
    ] = None,
) -> None:
    """Makes each failure happen, and reports what callers notice at each durability."""
    console = Console()
    rows: list[str] = []
    try:
        plan = _plan("failures", Mode.QUORUM, rate, down_after_ms)
        run_procedure(failures(rows, only or ()), plan, console)
    finally:
        console.print("\n".join(rows), soft_wrap=True, highlight=False, markup=False)


def register(app: typer.Typer, epilog: str) -> None:
    """Adds them to the program."""
    app.command(epilog=epilog)(rolling)
    app.command(epilog=epilog)(upgrade)
    app.command(epilog=epilog)(migrate)
    app.command(name="latency", epilog=epilog)(failover_latency)
    app.command(name="failures", epilog=epilog)(each_failure)


__all__ = ["register", "run_procedure"]
