"""Flags that commands share; those of the settings are in ddq/cli/configured.py."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from ddq.cli.durations import parse_attempts, parse_span, parse_time
from ddq.config import TARGET

_TARGET = re.compile(TARGET)


def parse_address(text: str) -> str:
    """HOST:PORT or a target with a scheme; BadParameter if it is neither."""
    # Without a port gRPC would silently take 443.
    match = _TARGET.fullmatch(text)
    if match is None or (match["port"] is not None and int(match["port"]) > 65_535):
        raise typer.BadParameter(f"invalid address {text!r}; expected HOST:PORT")
    return text


Address = Annotated[
    str,
    typer.Option(
        "--address",
        "-a",
        envvar="DDQ_ADDRESS",
        metavar="HOST:PORT",
        help="Address of the server.",
        parser=parse_address,
    ),
]
Timeout = Annotated[
    timedelta,
    typer.Option(
        "--timeout",
        metavar="DURATION",
        help="How long a request may take, with all its repeats.",
        parser=parse_span,
        show_default="15s",
    ),
]
DEFAULT_TIMEOUT = timedelta(seconds=15)

Json = Annotated[
    bool, typer.Option("--json", help="For programs: JSON, one document or one a line.")
]
Utf8 = Annotated[
    bool,
    typer.Option(
        "--utf8", help="In JSON, payloads that are UTF-8 as text; the others stay base64."
    ),
]
Delay = Annotated[
    timedelta | None,
    typer.Option(
        "--delay",
        metavar="DURATION",
        help="Delay from now: 250ms, 90s, 1h30m, 2d.",
        parser=parse_span,
    ),
]
At = Annotated[
    datetime | None,
    typer.Option(
        "--at",
        metavar="TIME",
        help="Due at this time, ISO 8601; local unless it has an offset.",
        parser=parse_time,
    ),
]
MaxAttempts = Annotated[
    int | None,
    typer.Option(
        "--max-attempts",
        metavar="COUNT",
        help="Attempts before the task is dead: 1 to 10000, or unlimited.",
        parser=parse_attempts,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def span_option(*names: str, help: str, show_default: str | bool = True) -> Any:  # noqa: A002
    """A flag that takes a duration."""
    return typer.Option(
        *names, metavar="DURATION", help=help, parser=parse_span, show_default=show_default
    )


InitialBackoff = Annotated[
    timedelta | None, span_option("--initial-backoff", help="Wait after the first failure.")
]
MaxBackoff = Annotated[
    timedelta | None, span_option("--max-backoff", help="Longest wait after a failure.")
]
Multiplier = Annotated[float | None, typer.Option(help="Factor from one wait to the next.")]
Jitter = Annotated[float | None, typer.Option(help="Random part on top of a wait, 0 to 1.")]
