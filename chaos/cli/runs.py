"""The commands that run something: run, smoke, all, nightly, replay."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from chaos.checker.verdict import Verdict
from chaos.cli.options import DownAfter, Duration, MutationName, Rate, Seed, WorkloadName
from chaos.experiments.campaign import exit_code, run_all, show_whole
from chaos.experiments.conclude import RUNS
from chaos.experiments.deployment import choose_backend
from chaos.experiments.plan import RunPlan, read_plan
from chaos.experiments.scenario import DEFAULT_MODE
from chaos.experiments.scenarios import CORE, REGRESSION, SMOKE, scenario
from chaos.faults import Mode
from chaos.history.run_folder import Run

Durability = Annotated[
    Mode | None,
    typer.Option(help="Else QUORUM where it claims the scenario's faults, and ALL elsewhere."),
]
Fsync = Annotated[bool, typer.Option("--fsync", help="Replies also wait for the disks.")]
ClusterKind = Annotated[
    str | None,
    typer.Option("--cluster", help="docker or process; else docker if an engine answers."),
]

DEFAULTS = RunPlan("", 0, DEFAULT_MODE)
NIGHTLY_EXPLORATORY = 20
NIGHTLY_EXPLORATORY_S = 180.0


def _plans(
    names: tuple[str, ...] | list[str], durability: Mode | None, template: RunPlan, out: Console
) -> list[RunPlan]:
    """One for each scenario, in its mode; says which have none."""
    plans = []
    for name in names:
        mode = scenario(name).mode(durability)
        if mode is None:
            out.print(f"{name}: no mode claims its faults; it runs in the matrix only")
            continue
        fsync = template.fsync or scenario(name).fsync
        plans.append(replace(template, scenario=name, mode=mode, fsync=fsync))
    return plans


def _template(
    out: Console,
    *,
    seed: int | None,
    cluster: str | None,
    rate: float,
    down_after_ms: int,
    duration: float = 0.0,
    fsync: bool = False,
    workload: str = "",
    mutation: str = "",
) -> RunPlan:
    """What all runs of a command have in common; prints the backend and the seed."""
    kind, why = choose_backend(cluster)
    number = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    out.print(f"{why}; seed {number}", highlight=False, soft_wrap=True)
    return replace(
        DEFAULTS,
        seed=number,
        duration_s=duration,
        rate=rate,
        fsync=fsync,
        cluster=kind,
        down_after_ms=down_after_ms,
        workload=workload,
        mutation=mutation,
    )


def run(  # noqa: PLR0917 - typer calls it by name
    scenarios: Annotated[
        list[str], typer.Argument(help="Names; see chaos/experiments/scenarios.py.")
    ],
    seed: Seed = None,
    duration: Duration = 0.0,
    rate: Rate = DEFAULTS.rate,
    durability: Durability = None,
    fsync: Fsync = False,
    cluster: ClusterKind = None,
    down_after_ms: DownAfter = DEFAULTS.down_after_ms,
    workload: WorkloadName = "",
    mutation: MutationName = "",
    seeds: Annotated[int, typer.Option(min=1, help="How many, one after the other.")] = 1,
) -> None:
    """Runs scenarios, and judges each."""
    out = Console()
    template = _template(
        out,
        seed=seed,
        cluster=cluster,
        rate=rate,
        down_after_ms=down_after_ms,
        duration=duration,
        fsync=fsync,
        workload=workload,
        mutation=mutation,
    )
    plans = _plans(scenarios, durability, template, out)
    every = [replace(plan, seed=plan.seed + n) for n in range(seeds) for plan in plans]
    raise typer.Exit(exit_code(run_all(every, out)))


def smoke(  # noqa: PLR0917 - typer calls it by name
    seed: Seed = None,
    rate: Rate = DEFAULTS.rate,
    durability: Durability = None,
    fsync: Fsync = False,
    cluster: ClusterKind = None,
    down_after_ms: DownAfter = DEFAULTS.down_after_ms,
) -> None:
    """The scenarios that say most in about 90 seconds."""
    out = Console()
    template = _template(
        out, seed=seed, cluster=cluster, rate=rate, down_after_ms=down_after_ms, fsync=fsync
    )
    raise typer.Exit(exit_code(run_all(_plans(SMOKE, durability, template, out), out)))


def every(  # noqa: PLR0917 - typer calls it by name
    seed: Seed = None,
    rate: Rate = DEFAULTS.rate,
    durability: Durability = None,
    fsync: Fsync = False,
    cluster: ClusterKind = None,
    down_after_ms: DownAfter = DEFAULTS.down_after_ms,
) -> None:
    """The core of the regression scenarios, in less than ten minutes."""
    out = Console()
    template = _template(
        out, seed=seed, cluster=cluster, rate=rate, down_after_ms=down_after_ms, fsync=fsync
    )
    outcomes = run_all(_plans(CORE, durability, template, out), out)
    met = show_whole(outcomes, out)
    raise typer.Exit(exit_code(outcomes) or (0 if met else Verdict.UNKNOWN.exit_code))


def nightly(  # noqa: PLR0917 - typer calls it by name
    seed: Seed = None,
    rate: Rate = DEFAULTS.rate,
    cluster: ClusterKind = None,
    down_after_ms: DownAfter = DEFAULTS.down_after_ms,
    resume: Annotated[
        Path,
        typer.Option(
            help="Outcomes are kept here; a run with the same file and seed continues there."
        ),
    ] = RUNS / "nightly.jsonl",
    scenario: Annotated[str, typer.Option(help="Only this one; exploratory for the drawn.")] = "",
    durability: Durability = None,
) -> None:
    """Every scenario in every mode that claims it, then many that the seed composes; hours."""
    out = Console()
    template = _template(out, seed=seed, cluster=cluster, rate=rate, down_after_ms=down_after_ms)
    plans = [
        replace(template, scenario=each.name, mode=mode, fsync=fsync)
        for each in REGRESSION
        for mode in sorted(each.modes)
        for fsync in ((False, True) if mode is Mode.ALL else (False,))
        if fsync or not each.fsync
    ]
    plans += [
        replace(
            template,
            scenario="exploratory",
            seed=template.seed + n,
            mode=mode,
            duration_s=NIGHTLY_EXPLORATORY_S,
        )
        for n in range(NIGHTLY_EXPLORATORY)
        for mode in (Mode.QUORUM, Mode.ALL)
    ]
    if scenario and scenario not in {plan.scenario for plan in plans}:
        raise typer.BadParameter(f"no scenario is called {scenario!r}")
    plans = [
        plan
        for plan in plans
        if scenario in {"", plan.scenario} and durability in {None, plan.mode}
    ]
    raise typer.Exit(exit_code(run_all(plans, out, resume=resume)))


def replay(
    folder: Annotated[Path, typer.Argument(help="The folder that a run left.")],
    durability: Durability = None,
) -> None:
    """Runs a saved run's schedule again: the same faults, seed and settings."""
    plan = read_plan(Run(folder).schedule)
    if durability is not None:
        plan = replace(plan, mode=durability)
    raise typer.Exit(exit_code(run_all([plan], Console())))


def mutations(
    names: Annotated[list[str] | None, typer.Argument(help="All if none is given.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Of each, with seeds one after the other.")] = 1,
    seed: Annotated[int, typer.Option(help="The first one.")] = 1,
    cluster: ClusterKind = None,
) -> None:
    """Seeds the mutations that only a cluster shows, one at a time, and sees each found."""
    # Late: a run of ddq as it is must not load its server.
    from chaos.experiments.mutants.run import run_mutations  # noqa: PLC0415

    out = Console()
    kind, why = choose_backend(cluster)
    out.print(why, highlight=False, soft_wrap=True)
    try:
        surviving = run_mutations(names or [], range(seed, seed + runs), kind, out)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    raise typer.Exit(1 if surviving else 0)


def register(app: typer.Typer, epilog: str) -> None:
    """Adds them to the program."""
    app.command(epilog=epilog)(run)
    app.command(epilog=epilog)(smoke)
    app.command(name="all", epilog=epilog)(every)
    app.command(epilog=epilog)(nightly)
    app.command(epilog=epilog)(replay)
    app.command(epilog="Exit status: 0 all were found, 1 a mutant survived.")(mutations)
