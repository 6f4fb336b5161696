"""Several runs one after the other: each with its verdict, and one exit status for all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from chaos.checker.gates import GATES, Gate, measure
from chaos.checker.judge import Judgement
from chaos.checker.resolve import resolve
from chaos.checker.verdict import HARNESS_FAILED
from chaos.clusters import ClusterError
from chaos.experiments.conclude import RUNS, conclude, leaves, new_folder
from chaos.experiments.plan import RunPlan
from chaos.experiments.recorded import perform
from chaos.experiments.scenario_run import scenario_experiment
from chaos.faults import KINDS, FaultRow
from chaos.history.reader import BadHistoryError
from chaos.report.terminal import COLOURS, show
from ddq.errors import DdqError

WHOLE_GATES = {
    "operations": 20_000.0,
    "failovers": 4.0,
    "operations during faults": 500.0,
    "cancels that beat the promotion": 20.0,
    "cancels that the promotion beat": 20.0,
    "reschedules that beat the promotion": 20.0,
    "reschedules that the promotion beat": 20.0,
    "stale tokens refused": 1.0,
    "deposed batches refused": 1.0,
    "unknowns later proved applied": 1.0,
    "unknowns later proved absent": 1.0,
}
"""What all the runs of `make chaos` have to meet together."""


class RunOutcome(msgspec.Struct):
    """How one run ended.

    Attributes:
        verdict: VALID, UNKNOWN, INVALID, or FAILED: the harness failed.
        broken: promises that were.
        measured: every gate, whether the run had to meet it or not.
        rows: of the table of faults, those of which a fault was verified.
    """

    name: str
    verdict: str
    folder: str = ""
    broken: list[str] = []
    operations: int = 0
    failovers: int = 0
    seconds: float = 0.0
    problem: str = ""
    measured: dict[str, float] = {}
    rows: list[str] = []

    @property
    def exit_code(self) -> int:
        """As ``chaos/checker/verdict.py`` has it."""
        return {"VALID": 0, "UNKNOWN": 2, "INVALID": 1}.get(self.verdict, HARNESS_FAILED)


def run_one(plan: RunPlan, console: Console, runs: Path = RUNS) -> RunOutcome:
    """One run with its table. Ctrl-C ends it; what it has done until then is judged."""
    folder, began_s = new_folder(plan, runs), time.monotonic()
    console.print(f"[bold]{plan.name}[/]  [dim]{folder}[/]", soft_wrap=True, highlight=False)
    problems: list[str] = []
    interrupted = False
    try:
        problems = _perform(plan, folder, console)
    except KeyboardInterrupt:
        interrupted = True
        problems = ["it was interrupted"]
    outcome = _conclude(plan, folder, problems, console)
    outcome.seconds = round(time.monotonic() - began_s, 1)
    if interrupted:
        raise KeyboardInterrupt
    return outcome


def _perform(plan: RunPlan, folder: Path, console: Console) -> list[str]:
    problems: list[str] = []
    try:
        with _client_mutation(plan):
            problems = asyncio.run(perform(scenario_experiment(plan), plan, folder, console))
    except* (ClusterError, DdqError, OSError) as errors:
        problems = [f"the run failed: {error}" for error in leaves(errors)]
    return problems


def _client_mutation(plan: RunPlan) -> AbstractContextManager[object]:
    """A mutation of the client library; those of the server are in its processes."""
    if not plan.mutation:
        return nullcontext()
    # Late: a run of ddq as it is must not load its server.
    from chaos.experiments.mutants.registry import find_mutation  # noqa: PLC0415

    mutation = find_mutation(plan.mutation)
    return mutation.apply() if mutation.in_client else nullcontext()


def _conclude(plan: RunPlan, folder: Path, problems: list[str], console: Console) -> RunOutcome:
    try:
        judgement = conclude(plan, folder, problems)
    except BadHistoryError as error:
        # It did not come as far as a history.
        problem = "; ".join([*problems, str(error)])
        console.print(f"[red]failed[/]: {problem}", soft_wrap=True, highlight=False)
        return RunOutcome(plan.name, "FAILED", str(folder), problem=problem)
    show(judgement.results, console)
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True, highlight=False)
    return _outcome(plan, folder, judgement)


def _outcome(plan: RunPlan, folder: Path, judgement: Judgement) -> RunOutcome:
    results, view = judgement.results, judgement.view
    kinds = {window.kind for window in view.timeline.windows if window.verified}
    gates = measure(view, resolve(view), dict.fromkeys(GATES, 0.0))
    return RunOutcome(
        plan.name,
        results.verdict,
        str(folder),
        [promise.id for promise in results.promises if promise.verdict == "INVALID"],
        sum(results.operations.values()),
        results.failovers,
        problem="; ".join(results.problems),
        measured={gate.name: gate.measured for gate in gates},
        rows=sorted({each.row.value for each in KINDS if each.name in kinds}),
    )


def run_all(
    plans: Iterable[RunPlan], console: Console, *, runs: Path = RUNS, resume: Path | None = None
) -> list[RunOutcome]:
    """Run after run, and a table of all.

    Args:
        resume: where outcomes are kept; what is in there is not run again.
    """
    outcomes: list[RunOutcome] = []
    known = {outcome.name: outcome for outcome in _kept(resume)} if resume else {}
    try:
        for plan in plans:
            outcome = known.get(plan.name) or run_one(plan, console, runs)
            outcomes.append(outcome)
            if resume is not None and plan.name not in known:
                resume.parent.mkdir(parents=True, exist_ok=True)
                with resume.open("ab") as file:
                    file.write(msgspec.json.encode(outcome) + b"\n")
    finally:
        show_outcomes(outcomes, console)
    return outcomes


def _kept(path: Path) -> Iterator[RunOutcome]:
    if path.exists():
        for line in path.read_bytes().splitlines():
            yield msgspec.json.decode(line, type=RunOutcome)


def show_outcomes(outcomes: Sequence[RunOutcome], console: Console) -> None:
    """The table at the end."""
    table = Table("run", "verdict", "broken", "operations", "failovers", "seconds", box=None)
    for one in outcomes:
        colour = COLOURS.get(one.verdict, "red")
        table.add_row(
            one.name,
            f"[bold {colour}]{one.verdict}[/]",
            " ".join(one.broken),
            f"{one.operations:,}",
            str(one.failovers),
            f"{one.seconds:.0f}",
        )
    console.print(table)


def whole_gates(outcomes: Sequence[RunOutcome]) -> list[Gate]:
    """What all runs of `make chaos` have met together, against what proves anything."""
    rows = {row for outcome in outcomes for row in outcome.rows}
    sums = {
        name: sum(outcome.measured.get(name, 0.0) for outcome in outcomes) for name in WHOLE_GATES
    }
    gates = [Gate(name, sums[name], required) for name, required in WHOLE_GATES.items()]
    return [*gates, Gate("rows of the table of faults", len(rows), len(FaultRow))]


def show_whole(outcomes: Sequence[RunOutcome], console: Console) -> bool:
    """Prints those gates; whether all were met."""
    gates = whole_gates(outcomes)
    for gate in gates:
        mark = "[green]met[/]" if gate.met else "[yellow]not met[/]"
        console.print(
            f"all runs: gate {mark}: {gate.name} {gate.measured:g}, required {gate.required:g}",
            highlight=False,
        )
    return all(gate.met for gate in gates)


def exit_code(outcomes: Sequence[RunOutcome]) -> int:
    """INVALID before a failure of the harness before UNKNOWN: what was found, was found."""
    codes = {outcome.exit_code for outcome in outcomes}
    return next((code for code in (1, HARNESS_FAILED, 2) if code in codes), 0)
