"""The command line: ``ddq``."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

# Before gRPC is loaded. Its log lines do not describe errors of ddq, and it warns about each
# process that is started, though none of them uses its connections.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import typer
from typer.main import get_command

from ddq.cli.app import app
from ddq.cli.exits import CommandError, ExitCode, close_stdout, complain


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``ddq`` and returns its exit status; see ``ddq --help`` for what that means."""
    # A payload or an id that the locale cannot show is escaped. To fail would be to fail the task.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    behind_dashes: list[str] = []
    # `ddq work TOPIC -- COMMAND`: the parser would take the command for more topics.
    if given[:1] == ["work"] and "--" in given:
        at = given.index("--")
        given, behind_dashes = given[:at], given[at + 1 :]
    try:
        status = get_command(app).main(
            given, prog_name="ddq", standalone_mode=False, obj=behind_dashes
        )
        sys.stdout.flush()
    except typer.TyperException as error:
        complain(f"{error.format_message()} (try {_help_of(error)})")
        return ExitCode.USAGE
    except CommandError as error:
        complain(str(error))
        return error.code
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        close_stdout()
        return ExitCode.BROKEN_PIPE
    except Exception as error:
        # The last resort: a bug, and that in one line too.
        if os.environ.get("DDQ_TRACEBACK"):
            raise
        complain(
            f"internal error: {type(error).__name__}: {error} "
            "(DDQ_TRACEBACK=1 shows where; please report it)"
        )
        return ExitCode.FAILED
    return int(status or 0)


def _help_of(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "ddq"
    return f"{path} --help"


__all__ = ["main"]
