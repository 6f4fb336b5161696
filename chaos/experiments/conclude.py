"""From a run's folder to its verdict: made before the run, judged and reported after it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from chaos.checker.judge import Judgement, judge, write_results
from chaos.experiments.plan import RunPlan, saved_bounds
from chaos.history.run_folder import Run
from chaos.report.junit import write_junit
from chaos.report.page import write_report

RUNS = Path("chaos/runs")


def new_folder(plan: RunPlan, runs: Path = RUNS) -> Path:
    """A folder for a run, made."""
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    folder = runs / f"{stamp}-{plan.name}"
    folder.mkdir(parents=True)
    return folder


def conclude(plan: RunPlan, folder: Path, problems: list[str]) -> Judgement:
    """Judges what is on disk, however far the run came, and writes results and report.

    Args:
        problems: of the run itself; any of them makes the verdict UNKNOWN at best.

    Raises:
        BadHistoryError: a file of the run cannot be read; there is no verdict then.
    """
    run = Run(folder)
    run.write_problems(problems)
    judgement = judge(run, saved_bounds(run.schedule))
    results = judgement.results
    write_results(run, results)
    write_report(run, judgement)
    write_junit(folder / "junit.xml", plan.name, results)
    return judgement


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The errors of a group, without its groups."""
    return [
        leaf
        for error in group.exceptions
        for leaf in (leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


__all__ = ["RUNS", "conclude", "leaves", "new_folder"]
