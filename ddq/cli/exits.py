"""What the exit status of ddq means, and how an error becomes one line."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from enum import IntEnum
from typing import Any, TypeVar

import typer

from ddq import errors
from ddq.errors import DdqError

R = TypeVar("R")


class ExitCode(IntEnum):
    """The exit statuses; ``ddq --help`` prints them from here."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNAVAILABLE = 5
    UNKNOWN = 6
    FULL = 7
    DENIED = 8
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "anything else went wrong",
    ExitCode.USAGE: "a flag, argument or value cannot be used",
    ExitCode.NOT_FOUND: "no such task or topic",
    ExitCode.CONFLICT: "taken, too late, or changed by another client",
    ExitCode.UNAVAILABLE: "no server, no store, or the server cannot start; nothing was done",
    ExitCode.UNKNOWN: "it may or may not have been done: the answer did not come",
    ExitCode.FULL: "no room in the topic or the store",
    ExitCode.DENIED: "the server does not let you",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C",
    ExitCode.BROKEN_PIPE: "the output pipe was closed",
}

_CODES: tuple[tuple[type[DdqError], ExitCode], ...] = (
    (errors.OutcomeUnknown, ExitCode.UNKNOWN),
    (errors.InvalidArgument, ExitCode.USAGE),
    (errors.NotFound, ExitCode.NOT_FOUND),
    (errors.AlreadyExists, ExitCode.CONFLICT),
    (errors.FailedPrecondition, ExitCode.CONFLICT),
    (errors.Aborted, ExitCode.CONFLICT),
    (errors.ResourceExhausted, ExitCode.FULL),
    (errors.Unavailable, ExitCode.UNAVAILABLE),
    (errors.TransportError, ExitCode.UNAVAILABLE),
    (errors.Unauthenticated, ExitCode.DENIED),
    (errors.PermissionDenied, ExitCode.DENIED),
)


class CommandError(Exception):
    """A command cannot continue; the message is the one line that is printed."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


class UsageError(CommandError):
    """The given options do not fit together."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.USAGE)


def exit_code(error: DdqError) -> ExitCode:
    """The exit status for an error of the tree."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return ExitCode.FAILED


def one_line(text: str) -> str:
    """Text that cannot break out of its line, nor steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def complain(text: str) -> None:
    """One line on stderr."""
    # Of stderr nothing can be reported, not even that it is closed.
    try:
        sys.stderr.write(f"ddq: {one_line(text)}\n")
        sys.stderr.flush()
    except OSError:
        pass


def run(work: Coroutine[Any, Any, R]) -> R:
    """Runs a command's coroutine; an exception that a task group wraps comes out bare."""

    async def unwrapped() -> R:
        try:
            return await work
        except BaseExceptionGroup as group:
            first: BaseException = group
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            raise first from None

    return asyncio.run(unwrapped())


def guarded(work: Coroutine[Any, Any, R]) -> R:
    """Runs a command's coroutine and turns what goes wrong into a line and an exit status."""
    try:
        return run(work)
    except DdqError as error:
        complain(str(error))
        raise typer.Exit(exit_code(error)) from None
    except CommandError as error:
        complain(str(error))
        raise typer.Exit(error.code) from None
    except BrokenPipeError:
        close_stdout()
        raise typer.Exit(ExitCode.BROKEN_PIPE) from None
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except OSError as error:
        complain(str(error))
        raise typer.Exit(ExitCode.FAILED) from None


def sure(question: str, *, yes: bool) -> None:
    """Returns if --yes was given or a person confirms it.

    Raises:
        CommandError: it was not confirmed.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(f"{question} Give --yes.", ExitCode.USAGE)
    if not typer.confirm(question, err=True):
        raise CommandError("nothing was done", ExitCode.FAILED)


def close_stdout() -> None:
    """Points stdout nowhere, else Python complains about the broken pipe when it exits."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
