"""The report of a run as Markdown: a table per workload with ratios, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from tests.bench.runner import Result, Run
from tests.bench.workloads import Workload

BASE = "ddq"
"""The system that the ratios are of."""

SHOWN = (
    ("tasks_per_s", "tasks/s"),
    ("sustained_per_s", "sustained/s"),
    ("offered_per_s", "offered/s"),
    ("accepted_per_s", "accepted/s"),
    ("refused_per_s", "refused/s"),
    ("unknown_per_s", "unknown/s"),
    ("backlog", "backlog"),
    ("server_mib", "server MiB"),
    ("server_growth_mib", "growth MiB"),
    ("pending_bytes", "B per pending task"),
    ("p50_ms", "p50 ms"),
    ("p99_ms", "p99 ms"),
    ("p99_9_ms", "p99.9 ms"),
    ("behind_ms", "producer late ms"),
    ("peak_bytes", "store peak B"),
    ("refused", "refused"),
    ("task_us", "µs per task"),
    ("cpu_client_us", "client µs"),
    ("cpu_server_us", "server µs"),
    ("cpu_store_us", "store µs"),
)
"""The figures of a table, in order, with the head of their column."""


@dataclass(frozen=True)
class Spread:
    """The median of some values, with the lowest and the highest."""

    low: float
    middle: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises ValueError if there are none."""
        if not values:
            raise ValueError("there are no values")
        return cls(min(values), median(values), max(values), len(values))

    def __str__(self) -> str:
        if self.count == 1:
            return number(self.middle)
        return f"{number(self.middle)} ({number(self.low)} to {number(self.high)})"


def number(value: float) -> str:
    """Three digits that matter, and no more than whole numbers from 100 on."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"


def ratios(results: Iterable[Result], workload: Workload) -> dict[str, Spread]:
    """ddq's figure divided by that of each peer in the same repetition, by peer."""
    by_system: dict[str, dict[int, float]] = {}
    for result in results:
        if result.workload == workload.name and workload.figure in result.figures:
            figure = result.figures[workload.figure]
            by_system.setdefault(result.system, {})[result.repetition] = figure
    base = by_system.pop(BASE, {})
    found = {}
    for system, figures in by_system.items():
        pairs = [base[n] / figures[n] for n in base.keys() & figures.keys() if figures[n]]
        if pairs:
            found[system] = Spread.of(pairs)
    return found


def markdown(run: Run, workloads: Sequence[Workload]) -> str:
    """The whole report."""
    about = (
        f"{run.machine}; {run.seconds:,.0f} s. {run.sizes.tasks:,} tasks with a payload of 256 B, "
        "store with appendfsync everysec. Median (lowest to highest) of the repetitions; µs are "
        "CPU time per task of the producer or worker process, of the server, and of the store."
    )
    lines = ["# Benchmark", "", about]
    for workload in workloads:
        lines += _section(run, workload)
    if run.missing:
        lines += ["", "## Not measured", "", "| system | missing | remedy |", "|---|---|---|"]
        lines += [
            f"| {each.system} | {_cell(each.what)} | `{_cell(each.remedy)}` |"
            for each in run.missing
        ]
    return "\n".join(lines) + "\n"


def _section(run: Run, workload: Workload) -> list[str]:
    results = [each for each in run.results if each.workload == workload.name]
    if not results:
        return []
    names = {name for result in results for name in result.figures}
    columns = [(name, head) for name, head in SHOWN if name in names]
    share = ratios(results, workload)
    better = "more" if workload.more_is_better else "less"
    heads = ["system", *(head for _, head in columns), f"{BASE} / system", "delivery"]
    lines = [
        "", f"## {workload.title}", "",
        f"`{workload.name}`; the ratio is of {workload.figure}, {better} is better.", "",
        f"| {' | '.join(heads)} |", "|" + "---|" * len(heads),
    ]  # fmt: skip
    for system in dict.fromkeys(each.system for each in results):
        own = [each for each in results if each.system == system]
        cells = [system]
        for name, _ in columns:
            values = [each.figures[name] for each in own if name in each.figures]
            cells.append(str(Spread.of(values)) if values else "-")
        cells += [str(share.get(system, "-")), _delivery(own)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _delivery(results: Sequence[Result]) -> str:
    """exact, or what was not, over all repetitions."""
    errors = [result.error for result in results if result.error]
    if errors:
        return _cell(f"failed {len(errors)} of {len(results)}: {errors[0]}")
    flaws: dict[str, float] = {}
    for result in results:
        for name, value in result.flaws.items():
            flaws[name] = flaws.get(name, 0) + value
    if flaws:
        return ", ".join(f"{name} {value:,.0f}" for name, value in flaws.items())
    checked = any("missing" in result.figures for result in results)
    return "exact" if checked else "-"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())[-200:]
