"""The distance of a store node's clock, from replies that may have been held up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddq.store.offset import StoreOffset


def test_a_reply_that_was_held_up_does_not_move_what_was_known() -> None:
    offset = StoreOffset()
    offset.note(5_000, 1.000, 1.001)
    before_s = offset.local_s(6_000)
    # The script ran at once, and its reply came two seconds later.
    offset.note(5_500, 1.500, 3.500)
    assert offset.local_s(6_000) == before_s


def test_a_clock_that_was_set_is_followed_at_once() -> None:
    offset = StoreOffset()
    offset.note(5_000, 1.000, 1.001)
    for store_ms in (9_000, 2_000):
        offset.note(store_ms, 2.000, 2.001)
        assert offset.local_s(store_ms) == pytest.approx(2.0, abs=0.0011)


def test_a_suspension_in_which_the_loops_time_stood_still_is_made_up_for() -> None:
    offset = StoreOffset()
    offset.note(5_000, 1.000, 1.001)
    offset.note(3_605_100, 1.100, 1.101)
    assert offset.local_s(3_605_200) == pytest.approx(1.2, abs=0.0011)


def test_nothing_is_known_before_the_first_reply() -> None:
    offset = StoreOffset()
    assert not offset.known
    with pytest.raises(ValueError, match="first reply"):
        offset.local_s(5_000)


@given(
    ahead_ms=st.integers(0, 10**12),
    replies=st.lists(st.tuples(*[st.integers(0, 3_000)] * 3), min_size=1, max_size=30),
)
def test_the_estimate_is_as_good_as_the_quickest_reply(
    ahead_ms: int, replies: list[tuple[int, int, int]]
) -> None:
    """However late the others were."""
    offset, now_ms = StoreOffset(), 0
    for pause_ms, there_ms, back_ms in replies:
        now_ms += pause_ms
        asked_s, ran_ms = now_ms / 1_000, now_ms + there_ms
        now_ms = ran_ms + back_ms
        offset.note(ran_ms + ahead_ms, asked_s, now_ms / 1_000)
    best_ms = min(back_ms for _, _, back_ms in replies)
    late_ms = offset.local_s(now_ms + ahead_ms) * 1_000 - now_ms
    assert -1.01 <= late_ms <= best_ms + 0.01
