"""Spans and times as people type and read them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import typer

from ddq.cli.durations import parse_span, parse_time
from ddq.cli.output import when
from ddq.durations import exact_span_text, moment_text, span_text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("90s", 90), ("1h30m", 5_400), ("2d", 172_800), ("1.5s", 1.5), ("0s", 0)],
)
def test_spans_are_read(text: str, seconds: float) -> None:
    assert parse_span(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "90", "s", "-5s", "5 s", "5s!", "1y", "five", "1e3s", "99999999999999999d"]
)
def test_an_invalid_span_is_refused(text: str) -> None:
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


@pytest.mark.parametrize(
    ("span_ms", "text"),
    [
        (0, "0s"),
        (315_360_000_000, "3650d"),
        (43_200_500, "12h500ms"),
        (90_061_001, "1d1h1m1s1ms"),
        (-1_000, "-1s"),
    ],
)
def test_limits_are_written_exactly_and_can_be_typed(span_ms: int, text: str) -> None:
    assert exact_span_text(span_ms) == text
    if span_ms >= 0:
        assert parse_span(text) == timedelta(milliseconds=span_ms)


def test_moments_are_written() -> None:
    assert moment_text(1_700_000_000_123) == "2023-11-14T22:13:20.123Z"
    assert moment_text(10**18) == f"{10**18} ms since 1970"


def test_times_are_read() -> None:
    assert parse_time("2030-01-31T08:00Z") == datetime(2030, 1, 31, 8, tzinfo=UTC)
    assert parse_time("2030-01-31T08:00+02:00") == datetime(2030, 1, 31, 6, tzinfo=UTC)
    local = datetime(2030, 1, 31, 8).astimezone()
    assert parse_time("2030-01-31T08:00") == local


@pytest.mark.parametrize("text", ["tomorrow", "", "2030-13-01", "90s"])
def test_an_invalid_time_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="ISO 8601"):
        parse_time(text)


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # By rule, so that no database of zones is needed.
    monkeypatch.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("new_york")
def test_local_times_that_are_no_moment_or_two_are_refused() -> None:
    for text in ("2027-03-14T02:30", "2027-03-14T02:00", "2027-03-14 02:59:59.999"):
        with pytest.raises(typer.BadParameter, match=r"does not exist.*offset"):
            parse_time(text)
    for text in ("2027-11-07T01:30", "2027-11-07T01:00"):
        with pytest.raises(typer.BadParameter, match=r"occurs twice, as .*-04:00 and as .*-05:00"):
            parse_time(text)


@pytest.mark.usefixtures("new_york")
@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2027-03-14T01:59:59", datetime(2027, 3, 14, 6, 59, 59, tzinfo=UTC)),
        ("2027-03-14T03:00", datetime(2027, 3, 14, 7, tzinfo=UTC)),
        ("2027-11-07T00:59:59", datetime(2027, 11, 7, 4, 59, 59, tzinfo=UTC)),
        ("2027-11-07T02:00", datetime(2027, 11, 7, 7, tzinfo=UTC)),
        ("2027-03-14T02:30-05:00", datetime(2027, 3, 14, 7, 30, tzinfo=UTC)),
        ("2027-01-31T24:00", datetime(2027, 2, 1, 5, tzinfo=UTC)),
        ("2027-01-31 24:00:00", datetime(2027, 2, 1, 5, tzinfo=UTC)),
        ("2027-12-31T24:00:00.000Z", datetime(2028, 1, 1, tzinfo=UTC)),
        ("2027-12-31T24:00+01:00", datetime(2027, 12, 31, 23, tzinfo=UTC)),
    ],
)
def test_local_times_around_those_are_read(text: str, moment: datetime) -> None:
    assert parse_time(text) == moment


@pytest.mark.parametrize("text", ["2027-01-31T24:01", "2027-01-31T25:00", "2027-02-30T24:00"])
def test_hours_beyond_the_end_of_a_day_are_no_time(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="invalid time"):
        parse_time(text)


@pytest.mark.parametrize("text", ["9999-12-31T24:00Z", "0001-01-01T00:00+10:00"])
def test_times_that_no_calendar_has_are_out_of_range(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="out of range"):
        parse_time(text)


@pytest.mark.usefixtures("new_york")
def test_times_are_printed_with_their_offset() -> None:
    assert when(datetime(2027, 3, 14, 7, tzinfo=UTC)).startswith("2027-03-14 03:00:00-04:00 (in ")
    assert when(datetime(2020, 11, 1, 5, 30, tzinfo=UTC)).startswith("2020-11-01 01:30:00-04:00 (")
    assert when(datetime(2020, 11, 1, 6, 30, tzinfo=UTC)).startswith("2020-11-01 01:30:00-05:00 (")
