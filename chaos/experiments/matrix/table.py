"""The durability matrix as a table: fault and mode → kept or lost, and for how long unavailable."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from chaos.experiments.matrix.rows import ROWS, MatrixRow
from chaos.experiments.matrix.step import StepResult
from chaos.faults import Mode

COLUMNS: tuple[tuple[Mode, bool], ...] = (
    (Mode.FAST, True),
    (Mode.QUORUM, True),
    (Mode.QUORUM, False),
    (Mode.ALL, True),
)
"""Mode, and whether the unbroken-barrier rule is on."""


class Cell(msgspec.Struct):
    """One fault in one mode.

    Attributes:
        lossy_steps: of the steps that happened, those that lost something.
        outage_p50_s, outage_max_s: longest times without an acknowledgement, a step.
        back_p95_s: from a new master's election to the first acknowledgement.
        kept: nothing was lost, in at least one step.
    """

    row: str
    mode: str
    rule: bool
    claimed: bool
    steps: int
    acked: int
    unknown: int
    lost: int
    lossy_steps: int
    outage_p50_s: float
    outage_max_s: float
    back_p95_s: float | None
    did_not_happen: int
    failed: int

    @property
    def kept(self) -> bool:
        """Nothing was lost, in at least one step."""
        return self.steps > 0 and not self.lost

    @property
    def broken(self) -> bool:
        """What was promised was lost."""
        return self.claimed and self.lost > 0


def cells(results: Iterable[StepResult]) -> list[Cell]:
    """In the order of the table; only those of which there is a step."""
    by_cell: dict[tuple[str, str, bool], list[StepResult]] = {}
    for result in results:
        by_cell.setdefault((result.row, result.mode, result.rule), []).append(result)
    return [
        _cell(row, mode, rule, by_cell[row.name, mode.value, rule])
        for row in ROWS
        for mode, rule in COLUMNS
        if (row.name, mode.value, rule) in by_cell
    ]


def _cell(row: MatrixRow, mode: Mode, rule: bool, steps: Sequence[StepResult]) -> Cell:
    counted = [step for step in steps if step.happened and not step.problem]
    outages = sorted(step.outage_s for step in counted)
    backs = sorted(step.back_s for step in counted if step.back_s is not None)
    return Cell(
        row=row.name,
        mode=mode.value,
        rule=rule,
        claimed=rule and mode in row.claimed,
        steps=len(counted),
        acked=sum(step.acked for step in counted),
        unknown=sum(step.unknown for step in counted),
        lost=sum(step.lost for step in counted),
        lossy_steps=sum(step.lost > 0 for step in counted),
        outage_p50_s=_quantile(outages, 0.5),
        outage_max_s=_quantile(outages, 1.0),
        back_p95_s=_quantile(backs, 0.95) if backs else None,
        did_not_happen=sum(not step.happened and not step.problem for step in steps),
        failed=sum(bool(step.problem) for step in steps),
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def heading(mode: Mode, rule: bool) -> str:
    """The heading of a column."""
    return mode.value.upper() if rule else f"{mode.value.upper()} without the rule"


def markdown(found: Sequence[Cell], command: str) -> str:
    """The table, for docs/GUARANTEES.md."""
    at = {(cell.row, cell.mode, cell.rule): cell for cell in found}
    columns = [c for c in COLUMNS if any((cell.mode, cell.rule) == (c[0], c[1]) for cell in found)]
    lines = [
        f"Measured by `{command}`. A cell: kept or lost (of acknowledged, in steps), the longest",
        "time without an acknowledgement (median and worst step), and at p95 the time from a new",
        "master's election to the next acknowledgement. **Bold**: claimed by the mode.",
        "",
        "| fault | " + " | ".join(heading(*column) for column in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for row in ROWS:
        texts = [_cell_text(at.get((row.name, mode.value, rule))) for mode, rule in columns]
        if any(texts):
            lines.append(f"| {row.name}: {row.doc} | " + " | ".join(texts) + " |")
    return "\n".join([*lines, ""])


def _cell_text(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if not cell.steps:
        return "not measured"
    what = (
        "kept"
        if cell.kept
        else f"lost {cell.lost:,} of {cell.acked:,} in {cell.lossy_steps} of {cell.steps} steps"
    )
    if cell.kept:
        what = f"{what} ({cell.acked:,} in {cell.steps} steps)"
    what = f"**{what}**" if cell.claimed else what
    outage = f"{what}; {cell.outage_p50_s:.1f} s, {cell.outage_max_s:.1f} s"
    return outage if cell.back_p95_s is None else f"{outage}; back {cell.back_p95_s:.1f} s"
