"""Sets of moments."""

from __future__ import annotations

import random

import pytest

from chaos.checker.spans import Spans


def moments(spans: Spans) -> set[int]:
    return {at for begin, end in spans.intervals for at in range(begin, end)}


def test_intervals_that_touch_or_overlap_are_one() -> None:
    spans = Spans([(5, 7), (1, 3), (3, 4), (6, 9), (9, 9), (12, 10)])
    assert spans.intervals == [(1, 4), (5, 9)]


@pytest.mark.parametrize("seed", range(50))
def test_they_cover_and_leave_out_what_sets_of_moments_do(seed: int) -> None:
    rng = random.Random(seed)

    def drawn() -> Spans:
        begins = [rng.randrange(40) for _ in range(rng.randrange(6))]
        return Spans((begin, begin + rng.randrange(8)) for begin in begins)

    one, other = drawn(), drawn()
    assert moments(one.without(other)) == moments(one) - moments(other)
    begin, end = rng.randrange(50), rng.randrange(50)
    assert one.covered(begin, end) == len(moments(one) & set(range(begin, end)))
