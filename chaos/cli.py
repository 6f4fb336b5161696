"""``python -m chaos``: each command is one function here or in a module that adds its own."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer.main import get_command

from chaos.bounds import Bounds
from chaos.history import BadHistoryError
from chaos.judge import judge, judge_journal, write_results
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
    if journal is not None and run is None:
        judgement = judge_journal(journal, max_attempts)
    elif run is not None and journal is None:
        judgement = judge(Run(run), Bounds(clock_error_ms, lateness_ms, recovery_ms))
        write_results(Run(run), judgement.results)
        write_report(Run(run), judgement)
    else:
        raise typer.BadParameter("name a run's folder, or a journal with --journal")
    show(judgement.results, Console())
    raise typer.Exit(judgement.results.exit_code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status.

    Whatever goes wrong on the way is the harness's failure: the statuses of a traceback and of a
    wrong option, 1 and 2, would read as INVALID and UNKNOWN.
    """
    try:
        return int(get_command(app).main(arguments, prog_name="chaos", standalone_mode=False) or 0)
    except typer.TyperException as error:
        problem = f"{error.format_message()} (try --help)"
    except (BadHistoryError, OSError) as error:
        problem = str(error)
    except Exception:  # noqa: BLE001 - the last resort: a bug of the harness
        problem = f"internal error\n{traceback.format_exc()}"
    print(f"chaos: {problem}", file=sys.stderr)
    return HARNESS_FAILED
