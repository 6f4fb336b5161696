"""The commands that measure the durability matrix."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from chaos.checker.verdict import HARNESS_FAILED
from chaos.cli.options import DownAfter, Steps
from chaos.experiments.conclude import RUNS
from chaos.experiments.deployment import choose_backend
from chaos.experiments.matrix.rows import ROWS, row
from chaos.experiments.matrix.run import MatrixPlan, measure_matrix
from chaos.experiments.matrix.table import COLUMNS, Cell, heading, markdown
from chaos.faults import Mode

MATRIX_STEPS = 3

Rows = Annotated[list[str] | None, typer.Argument(help="Names of rows; all if none is given.")]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", help="fast, quorum, all, or rule-off for QUORUM without the rule."),
]
Folder = Annotated[Path, typer.Option(help="What is in it is not measured again.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Empty the folder first.")]
ClusterKind = Annotated[str | None, typer.Option("--cluster", help="process or docker.")]

_BY_NAME = {"rule-off" if not rule else mode.value: (mode, rule) for mode, rule in COLUMNS}


def exit_code(cells: Sequence[Cell]) -> int:
    """1: something was lost that is claimed; 2: a control lost nothing, or a cell is empty."""
    if any(cell.broken for cell in cells):
        return 1
    if any(cell.failed and not cell.steps for cell in cells):
        return HARNESS_FAILED
    controls = [cell for cell in cells if not cell.rule]
    blind = bool(controls) and not any(cell.lost for cell in controls)
    return 2 if blind or not all(cell.steps for cell in cells) else 0


def _perform(plan: MatrixPlan, out: Console, *, fresh: bool) -> None:
    if fresh and plan.folder.exists():
        shutil.rmtree(plan.folder)
    found = asyncio.run(measure_matrix(plan, out))
    out.print(Markdown(markdown(found, plan.command)))
    for cell in found:
        if cell.broken:
            where = f"{cell.row} in {cell.mode.upper()}"
            out.print(f"[red]INVALID[/]: {where} lost {cell.lost:,} of {cell.acked:,}")
    controls = [cell for cell in found if not cell.rule]
    if controls:
        lost = sum(cell.lost for cell in controls)
        out.print(f"control ({heading(*_BY_NAME['rule-off'])}): {lost:,} lost")
    out.print(f"table: {plan.folder / 'matrix.md'}", highlight=False, soft_wrap=True)
    raise typer.Exit(exit_code(found))


def _columns(names: Sequence[str] | None) -> list[tuple[Mode, bool]]:
    try:
        return [_BY_NAME[name] for name in names or _BY_NAME]
    except KeyError as error:
        raise typer.BadParameter(f"no column {error}; there are {', '.join(_BY_NAME)}") from None


def durability_matrix(  # noqa: PLR0917 - typer calls it by name
    rows: Rows = None,
    column: Columns = None,
    steps: Steps = 0,
    down_after_ms: DownAfter = 1_000,
    folder: Folder = RUNS / "durability-matrix",
    fresh: Fresh = False,
) -> None:
    """Measures what each durability loses under each fault, on local processes; takes hours."""
    _start(
        "make durability-matrix",
        rows=rows,
        column=column,
        steps=steps,
        folder=folder,
        down_after_ms=down_after_ms,
        fresh=fresh,
        cluster="process",
    )


def matrix(  # noqa: PLR0917 - typer calls it by name
    rows: Rows = None,
    column: Columns = None,
    steps: Steps = MATRIX_STEPS,
    down_after_ms: DownAfter = 1_000,
    folder: Folder = RUNS / "matrix",
    fresh: Fresh = False,
    cluster: ClusterKind = None,
) -> None:
    """The same with a few steps per cell, in containers where an engine answers."""
    _start(
        "make chaos-matrix",
        rows=rows,
        column=column,
        steps=steps,
        down_after_ms=down_after_ms,
        folder=folder,
        fresh=fresh,
        cluster=cluster,
    )


def _start(
    command: str,
    *,
    rows: Sequence[str] | None,
    column: Sequence[str] | None,
    steps: int,
    down_after_ms: int,
    folder: Path,
    fresh: bool,
    cluster: str | None,
) -> None:
    out = Console()
    kind, why = choose_backend(cluster)
    out.print(why, highlight=False)
    try:
        chosen = [row(name) for name in rows] if rows else list(ROWS)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    plan = MatrixPlan(chosen, _columns(column), folder, command, steps, kind, down_after_ms)
    _perform(plan, out, fresh=fresh)


def register(app: typer.Typer, epilog: str) -> None:
    """Adds them to the program."""
    app.command(name="durability-matrix", epilog=epilog)(durability_matrix)
    app.command(name="matrix", epilog=epilog)(matrix)
