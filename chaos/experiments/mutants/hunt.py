"""``python -m chaos bugs``: plants each bug and sees it found, by a promise that it breaks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from chaos.experiments.campaign import RunOutcome, run_one
from chaos.experiments.mutants.registry import BUGS, Bug, bug
from chaos.experiments.plan import RunPlan


def found_by(planted: Bug, outcome: RunOutcome) -> list[str]:
    """The promises that named it; a crash, or a promise that it does not break, does not count."""
    return sorted(planted.breaks & set(outcome.broken)) if outcome.verdict == "INVALID" else []


def hunt(names: Sequence[str], seeds: Iterable[int], cluster: str, out: Console) -> list[str]:
    """Runs each bug's scenario with each seed; returns the names of those that were not found.

    Raises:
        ValueError: there is no such bug.
    """
    chosen = [bug(name) for name in names] or list(BUGS.values())
    found = [
        (planted, run_one(_plan(planted, seed, cluster), out))
        for planted in chosen
        for seed in seeds
    ]
    _show(found, out)
    survived = sorted(
        {planted.name for planted, outcome in found if not found_by(planted, outcome)}
    )
    if survived:
        out.print(f"[red]survived[/]: {', '.join(survived)}")
    return survived


def _plan(planted: Bug, seed: int, cluster: str) -> RunPlan:
    plan = RunPlan(planted.scenario, seed, planted.mode, cluster=cluster, bug=planted.name)
    return plan if planted.rate is None else replace(plan, rate=planted.rate)


def _show(found: Sequence[tuple[Bug, RunOutcome]], out: Console) -> None:
    table = Table("bug", "scenario", "mode", "found by", "seconds", "run", box=None)
    for planted, outcome in found:
        by = " ".join(found_by(planted, outcome)) or f"[red]not found ({outcome.verdict})[/]"
        table.add_row(
            planted.name, planted.scenario, planted.mode.value, by, f"{outcome.seconds:.0f}",
            outcome.folder,
        )  # fmt: skip
    out.print(table)
