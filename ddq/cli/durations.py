"""Spans and times as people type and read them: 90s, 1h30m, 250ms; 2030-01-31T08:00."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import typer

from ddq.config import UNLIMITED_ATTEMPTS

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_END_OF_DAY = re.compile(
    r"(?P<day>\d{4}-\d{2}-\d{2})[T ]24:00(?::00(?:[.,]0+)?)?(?P<offset>Z|[+-]\d{2}(?::?\d{2})?)?"
)
_ZONE_RULE = re.compile(r"(?:[A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)[+-]?\d.*")
_ZONES_OF_ALL_MACHINES = {"", "UTC", "UCT", "GMT", "Universal", "Zulu"}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_span(text: str | timedelta) -> timedelta:
    """``1h30m`` as a timedelta; BadParameter if it is not a duration."""
    if isinstance(text, timedelta):
        # A flag's default comes by here too.
        return text
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise typer.BadParameter(
            f"invalid duration {text!r}; expected a number with a unit, for example 250ms, 90s, "
            "1h30m or 2d"
        )
    try:
        return timedelta(
            milliseconds=sum(float(number) * _UNITS_MS[unit] for number, unit in parts)
        )
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is too long") from None


def parse_time(text: str) -> datetime:
    """An ISO 8601 time; without an offset it is local.

    Raises:
        BadParameter: it is none, or no moment or several moments in the local time zone: a task
            could become due earlier than was asked for.
    """
    try:
        # The midnight at the end of a day, which this Python may not know.
        midnight = _END_OF_DAY.fullmatch(text)
        if midnight is not None:
            text_at_zero = f"{midnight['day']}T00:00{midnight['offset'] or ''}"
            found = datetime.fromisoformat(text_at_zero) + timedelta(days=1)
        else:
            found = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"invalid time {text!r} ({error}); expected ISO 8601, for example 2030-01-31T08:00 "
            "(local) or 2030-01-31T08:00Z"
        ) from None
    except OverflowError:
        raise _out_of_range(text) from None
    try:
        return found.astimezone() if found.tzinfo is not None else _local(text, found)
    except (ValueError, OverflowError, OSError):
        raise _out_of_range(text) from None


def _local(text: str, naive: datetime) -> datetime:
    """A time of the local zone, which has to be one moment."""
    if (zone := _unknown_zone()) is not None:
        raise typer.BadParameter(
            f"{text!r} is local, and this machine does not know the time zone {zone!r} that TZ "
            "names; give it with an offset, like 08:00+02:00"
        )
    moments = {
        moment.astimezone(UTC): moment
        for fold in (0, 1)
        if (moment := naive.replace(fold=fold).astimezone()).replace(tzinfo=None, fold=0)
        == naive.replace(fold=0)
    }
    if len(moments) == 1:
        return next(iter(moments.values()))
    if not moments:
        why = "does not exist: the clocks are set forward over it"
    else:
        first, second = (moments[key].isoformat() for key in sorted(moments))
        why = f"occurs twice, as {first} and as {second}"
    raise typer.BadParameter(
        f"{text!r} {why} in the local time zone; give it with an offset, like 08:00+02:00"
    )


def _unknown_zone() -> str | None:
    """The zone that TZ names, if the C library has no data for it and takes it for UTC."""
    zone = os.environ.get("TZ", "").removeprefix(":")
    if zone in _ZONES_OF_ALL_MACHINES or _ZONE_RULE.fullmatch(zone):
        return None
    folder = Path(os.environ.get("TZDIR", "/usr/share/zoneinfo"))
    # An absolute path stands for itself.
    return None if (folder / zone).is_file() else zone


def _out_of_range(text: str) -> typer.BadParameter:
    return typer.BadParameter(
        f"{text!r} is out of range; give a time of the years 1 to 9999, in UTC too"
    )


def parse_attempts(text: str | int) -> int:
    """A number of attempts, or ``unlimited``; BadParameter if it is neither."""
    if text == "unlimited":
        return UNLIMITED_ATTEMPTS
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= UNLIMITED_ATTEMPTS:
        raise typer.BadParameter(f"{text!r} is not a number from 1 on, nor 'unlimited'")
    return number


def attempts_text(number: int | None) -> str:
    """The number, or ``unlimited``."""
    return "unlimited" if number == UNLIMITED_ATTEMPTS else str(number)
