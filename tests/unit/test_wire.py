"""Page tokens: opaque, read back as they were, and refused when a client made them up."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddq.errors import InvalidArgument
from ddq.server import wire
from ddq.store.job_values import Cursor

SCORES = st.just("") | st.integers(0, 2**53).map(lambda ms: repr(float(ms)))


@given(st.integers(0, 63), SCORES, st.binary(max_size=256))
def test_a_page_token_is_read_back(shard: int, score: str, last_id: bytes) -> None:
    cursor = Cursor(shard, score, last_id)
    assert wire.cursor(wire.page_token(cursor)) == cursor


def test_no_token_is_the_first_page_and_no_cursor_no_token() -> None:
    assert wire.cursor("") == Cursor()
    assert wire.page_token(None) == ""


def made_up(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "x", "ä", "=" * 5, "A" * 1_025, made_up(), made_up(0), made_up(0, "", "", ""),
        made_up(-1, "", ""), made_up("0", "", ""), made_up(0, "nan", ""), made_up(0, "x", ""),
        made_up(0, [], ""), made_up(0, "", "?"), made_up(0, "", 1), made_up([[]] * 9),
        base64.urlsafe_b64encode(b"[" * 600).decode(),
    ],
)  # fmt: skip
def test_a_token_that_no_server_gave_is_refused_in_one_line(token: str) -> None:
    with pytest.raises(InvalidArgument, match="page_token: is not one that this server gave"):
        wire.cursor(token)


@given(st.text(max_size=60))
def test_no_text_raises_anything_else(token: str) -> None:
    with contextlib.suppress(InvalidArgument):
        wire.cursor(token)


@given(st.integers(0, 253_402_300_799_999))
def test_times_are_read_back(ms: int) -> None:
    assert wire.timestamp(ms).ToMilliseconds() == ms
    assert wire.duration(ms).ToMilliseconds() == ms


def test_a_passed_time_is_a_duration_of_zero() -> None:
    assert wire.duration(-5).ToMilliseconds() == 0
