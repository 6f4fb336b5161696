"""``python -m chaos``: each command is one function here or in a module that adds its own."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer.main import get_command

from chaos.checker.bounds import Bounds
from chaos.checker.judge import judge, judge_journal, write_results
from chaos.checker.verdict import HARNESS_FAILED
from chaos.cli import maintenance, matrix, runs
from chaos.clusters import ClusterError
from chaos.experiments.plan import saved_bounds
from chaos.history.reader import BadHistoryError
from chaos.history.run_folder import Run
from chaos.report.page import write_report
from chaos.report.terminal import show

app = typer.Typer(
    name="chaos",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Runs ddq under faults, and judges what clients saw.",
)

EXIT_CODES = "Exit status: 0 VALID, 1 INVALID, 2 UNKNOWN, 3 it could not be judged."
runs.register(app, EXIT_CODES)
matrix.register(app, EXIT_CODES)
maintenance.register(app, EXIT_CODES)


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
        int | None, typer.Option(help="How far the store's clock may be off (G5, G7, G10).")
    ] = None,
    lateness_ms: Annotated[int | None, typer.Option(help="G6 when healthy.")] = None,
    recovery_ms: Annotated[
        int | None,
        typer.Option(help="G6 after a fault: leadership time-out + settling time + 2 s."),
    ] = None,
) -> None:
    """Judges a saved run again, without a cluster; writes results.json and report.html into it.

    Bounds that are not given are those of the run.
    """
    if journal is not None and run is None:
        judgement = judge_journal(journal, max_attempts)
    elif run is not None and journal is None:
        judgement = judge(Run(run), _bounds(Run(run), clock_error_ms, lateness_ms, recovery_ms))
        write_results(Run(run), judgement.results)
        write_report(Run(run), judgement)
    else:
        raise typer.BadParameter("name a run's folder, or a journal with --journal")
    show(judgement.results, Console())
    raise typer.Exit(judgement.results.exit_code)


def _bounds(
    run: Run, clock_error_ms: int | None, lateness_ms: int | None, recovery_ms: int | None
) -> Bounds:
    bounds = saved_bounds(run.schedule)
    if clock_error_ms is not None:
        bounds.clock_error_ms = clock_error_ms
    if lateness_ms is not None:
        bounds.lateness_ms = lateness_ms
    if recovery_ms is not None:
        bounds.recovery_ms = recovery_ms
    return bounds


RETIRED_NAMES = {"sweep": "durability-matrix", "bugs": "mutations"}
"""Commands of 0.2.0 that have another name; they work for one release."""


def _current_names(arguments: Sequence[str]) -> list[str]:
    """The arguments with retired names replaced; each one is reported."""
    current = list(arguments)
    if current and (name := RETIRED_NAMES.get(current[0])):
        print(f"chaos: `{current[0]}` is called `{name}` now", file=sys.stderr)
        current[0] = name
    for n, argument in enumerate(current):
        option, equals, value = argument.partition("=")
        if option == "--bug":
            print("chaos: `--bug` is called `--mutation` now", file=sys.stderr)
            current[n] = f"--mutation{equals}{value}"
    return current


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status.

    Whatever goes wrong on the way is the harness's failure: the statuses of a traceback and of a
    wrong option, 1 and 2, would read as INVALID and UNKNOWN.
    """
    # Whatever ends a run leaves its history, and nothing else. A shell's background jobs ignore
    # SIGINT until they ask for it; and only that signal reaches the event loop.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda _number, _frame: signal.raise_signal(signal.SIGINT))
    try:
        return int(
            get_command(app).main(
                _current_names(sys.argv[1:] if arguments is None else arguments),
                prog_name="chaos",
                standalone_mode=False,
            )
            or 0
        )
    except typer.TyperException as error:
        problem = f"{error.format_message()} (try --help)"
    except (BadHistoryError, ClusterError, OSError) as error:
        problem = str(error)
    except (KeyboardInterrupt, typer.Abort):
        problem = "interrupted"
    except Exception:  # noqa: BLE001 - the last resort: a bug of the harness
        problem = f"internal error\n{traceback.format_exc()}"
    print(f"chaos: {problem}", file=sys.stderr)
    return HARNESS_FAILED
