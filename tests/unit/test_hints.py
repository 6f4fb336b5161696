"""Hints: what scripts publish is understood, anything else on the channel is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddq.store.hints import DueHint, FreeHint, Hint, ReadyHint, TopicHint, parse_hint
from ddq.store.keys import ShardId


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        (b"due {mail} 1800000000000", DueHint(ShardId("mail", 0), 1_800_000_000_000)),
        (b"due {mail:3} 0", DueHint(ShardId("mail", 3), 0)),
        (b"free {mail} 7", FreeHint(ShardId("mail", 0), 7)),
        (b"ready {mail} 7", ReadyHint(ShardId("mail", 0), 7)),
        (b"topic mail 0", TopicHint("mail")),
    ],
)
def test_hints_are_understood(message: bytes, hint: Hint) -> None:
    assert parse_hint(message) == hint


@pytest.mark.parametrize(
    "message",
    [
        b"", b"due", b"due {mail}", b"due {mail} soon", b"due mail 1", b"due {} 1",
        b"due {mail} 1 2", b"ready {mail:x} 1", b"other {mail} 1", b"\xff\xfe", b"due {mail} 1.5",
    ],
)  # fmt: skip
def test_anything_else_is_none(message: bytes) -> None:
    assert parse_hint(message) is None


@given(st.binary(max_size=64))
def test_nothing_on_the_channel_raises(message: bytes) -> None:
    parse_hint(message)
