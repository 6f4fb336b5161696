"""``python -m chaos mutations``: seeds each mutation, and sees that a promise finds it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from chaos.experiments.campaign import RunOutcome, run_one
from chaos.experiments.mutants.registry import MUTATIONS, SeededMutation, find_mutation
from chaos.experiments.plan import RunPlan


def found_by(mutation: SeededMutation, outcome: RunOutcome) -> list[str]:
    """The promises that named it; a crash, or a promise that it does not break, does not count."""
    return sorted(mutation.breaks & set(outcome.broken)) if outcome.verdict == "INVALID" else []


def run_mutations(
    names: Sequence[str], seeds: Iterable[int], cluster: str, out: Console
) -> list[str]:
    """Runs each mutation's scenario with each seed; returns the names of the surviving mutants.

    Args:
        names: of mutations; empty: all.

    Raises:
        ValueError: there is no such mutation.
    """
    chosen = [find_mutation(name) for name in names] or list(MUTATIONS.values())
    found = [
        (mutation, run_one(_plan(mutation, seed, cluster), out))
        for mutation in chosen
        for seed in seeds
    ]
    _show(found, out)
    surviving = sorted(
        {mutation.name for mutation, outcome in found if not found_by(mutation, outcome)}
    )
    if surviving:
        out.print(f"[red]surviving mutants[/]: {', '.join(surviving)}")
    return surviving


def _plan(mutation: SeededMutation, seed: int, cluster: str) -> RunPlan:
    plan = RunPlan(
        mutation.scenario,
        seed,
        mutation.mode,
        cluster=cluster,
        workload=mutation.workload,
        mutation=mutation.name,
    )
    return plan if mutation.rate is None else replace(plan, rate=mutation.rate)


def _show(found: Sequence[tuple[SeededMutation, RunOutcome]], out: Console) -> None:
    table = Table("mutation", "scenario", "mode", "found by", "seconds", "run", box=None)
    for mutation, outcome in found:
        by = " ".join(found_by(mutation, outcome)) or f"[red]not found ({outcome.verdict})[/]"
        table.add_row(
            mutation.name,
            mutation.scenario,
            mutation.mode.value,
            by,
            f"{outcome.seconds:.0f}",
            outcome.folder,
        )
    out.print(table)


__all__ = ["found_by", "run_mutations"]
