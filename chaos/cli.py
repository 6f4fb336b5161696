"""``python -m chaos``: each command is one function here or in a module that adds its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from chaos.bounds import Bounds
from chaos.history import BadHistoryError
from chaos.judge import judge, judge_journal
from chaos.report import write_report
from chaos.run import Run
from chaos.show import show
from chaos.verdict import HARNESS_FAILED

app = typer.Typer(
    name="chaos",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Runs ddq under faults, and judges what clients saw.",
)

EXIT_CODES = "Exit status: 0 VALID, 1 INVALID, 2 UNKNOWN, 3 it could not be judged."
_DEFAULTS = Bounds()


@app.callback()
def _commands() -> None:
    """Makes typer keep the name of a command that is the only one."""


@app.command(epilog=EXIT_CODES)
def check(  # noqa: PLR0917 - typer calls it by name
    run: Annotated[Path | None, typer.Argument(help="The folder that a run left.")] = None,
    journal: Annotated[
        Path | None, typer.Option(help="Judge this journal by itself instead of a run.")
    ] = None,
    max_attempts: Annotated[
        int | None, typer.Option(help="With --journal: of every task's retry policy.")
    ] = None,
    clock_error_ms: Annotated[
        int, typer.Option(help="How far the store's clock may be off (G5, G7, G10).")
    ] = _DEFAULTS.clock_error_ms,
    lateness_ms: Annotated[int, typer.Option(help="G6 when healthy.")] = _DEFAULTS.lateness_ms,
    recovery_ms: Annotated[
        int, typer.Option(help="G6 after a fault: leadership time-out + settling time + 2 s.")
    ] = _DEFAULTS.recovery_ms,
) -> None:
    """Judges a saved run again, without a cluster; writes results.json and report.html into it."""
    if (run is None) == (journal is None):
        raise typer.BadParameter("name a run's folder, or a journal with --journal")
    console = Console()
    try:
        if run is None:
            assert journal is not None
            judgement = judge_journal(journal, max_attempts)
        else:
            bounds = Bounds(clock_error_ms, lateness_ms, recovery_ms)
            judgement = judge(Run(run), bounds)
            results = msgspec.json.format(msgspec.json.encode(judgement.results))
            Run(run).results.write_bytes(results)
            write_report(Run(run), judgement)
    except (BadHistoryError, OSError) as error:
        print(f"chaos: {error}", file=sys.stderr)
        raise typer.Exit(HARNESS_FAILED) from None
    show(judgement.results, console)
    raise typer.Exit(judgement.results.exit_code)
