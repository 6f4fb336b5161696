"""Flags that commands share, and those that are made from ddq.config.Settings."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, fields
from datetime import datetime, timedelta
from typing import Annotated, Any, get_type_hints

import typer

from ddq.cli.durations import parse_attempts, parse_span, parse_time
from ddq.cli.exits import UsageError
from ddq.config import Settings, check_settings

DEFAULT_ADDRESS = "127.0.0.1:50051"
_HOST_PORT = re.compile(r".+:(\d{1,5})")
_SCHEME = re.compile(r"(?:dns|ipv4|ipv6|unix|unix-abstract|xds):.+")


def parse_address(text: str) -> str:
    """HOST:PORT or a target with a scheme; BadParameter if it is neither."""
    # Without a port gRPC would silently take 443.
    match = _HOST_PORT.fullmatch(text)
    if not _SCHEME.fullmatch(text) and (match is None or int(match[1]) > 65_535):
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


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command with an argument ``settings: Settings`` one flag for each setting.

    ``store_timeout_ms`` becomes ``--store-timeout-ms`` and ``DDQ_STORE_TIMEOUT_MS``.
    """
    own = inspect.signature(command, eval_str=True)
    hints = get_type_hints(Settings)
    flags = {
        spec.name: inspect.Parameter(
            spec.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=spec.default,
            annotation=Annotated[
                hints[spec.name],
                typer.Option(
                    _flag(spec.name, is_switch=hints[spec.name] is bool),
                    envvar=f"DDQ_{spec.name.upper()}",
                    help=_sentence(spec.metadata["doc"]),
                    rich_help_panel="Settings",
                ),
            ],
        )
        for spec in fields(Settings)
        if spec.default is not MISSING
    }

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        settings = Settings(**{name: given.pop(name) for name in flags})
        try:
            check_settings(settings)
        except ValueError as error:
            raise UsageError(str(error)) from None
        command(settings=settings, **given)

    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in own.parameters.items()
        if name != "settings"
    ]
    wrapper.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[*parameters, *flags.values()]
    )
    return wrapper


def _flag(name: str, *, is_switch: bool) -> str:
    dashed = name.replace("_", "-")
    return f"--{dashed}/--no-{dashed}" if is_switch else f"--{dashed}"


def _sentence(text: str) -> str:
    # Not capitalize(): that would turn OVERLOADED into overloaded.
    return f"{text[:1].upper()}{text[1:]}."
