"""Spans and times as people type and read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import typer

from ddq.cli.spans import parse_span, parse_time
from ddq.spans import span_text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("90s", 90), ("1h30m", 5_400), ("2d", 172_800), ("1.5s", 1.5), ("0s", 0)],
)
def test_spans_are_read(text: str, seconds: float) -> None:
    assert parse_span(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "90", "s", "-5s", "5 s", "5s!", "1y", "five", "1e3s", "99999999999999999d"]
)
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"duration|too long"):
        parse_span(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "250ms"),
        (1.5, "1.5s"),
        (30, "30s"),
        (5_400, "1h30m"),
        (90_061, "1d1h"),
        (0, "0ms"),
        (-90, "-1m30s"),
    ],
)
def test_spans_are_written(seconds: float, text: str) -> None:
    assert span_text(timedelta(seconds=seconds)) == text


def test_times_are_read() -> None:
    assert parse_time("2030-01-31T08:00Z") == datetime(2030, 1, 31, 8, tzinfo=UTC)
    assert parse_time("2030-01-31T08:00+02:00") == datetime(2030, 1, 31, 6, tzinfo=UTC)
    local = datetime(2030, 1, 31, 8).astimezone()
    assert parse_time("2030-01-31T08:00") == local


@pytest.mark.parametrize("text", ["tomorrow", "", "2030-13-01", "90s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="ISO 8601"):
        parse_time(text)
