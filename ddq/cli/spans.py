"""Spans and times as people type and read them: 90s, 1h30m, 250ms; 2030-01-31T08:00."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import typer

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_span(text: str | timedelta) -> timedelta:
    """``1h30m`` as a timedelta; BadParameter if it is none."""
    if isinstance(text, timedelta):
        # A flag's default comes by here too.
        return text
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise typer.BadParameter(
            f"{text!r} is no duration; give a number with a unit, for example 250ms, 90s, 1h30m "
            "or 2d"
        )
    try:
        return timedelta(
            milliseconds=sum(float(number) * _UNITS_MS[unit] for number, unit in parts)
        )
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is too long") from None


def parse_time(text: str) -> datetime:
    """An ISO 8601 time; without an offset it is local. BadParameter if it is none."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError, OSError):
        raise typer.BadParameter(
            f"{text!r} is no time; give ISO 8601, for example 2030-01-31T08:00 (local) or "
            "2030-01-31T08:00Z"
        ) from None
