"""Schedules of faults: drawn from a seed, written down, and played again."""

from __future__ import annotations

import pytest

from chaos.faults import KINDS, Mode
from chaos.faults.nemesis import Schedule, Step, draw


def test_a_seed_gives_one_schedule_and_what_was_written_plays_again() -> None:
    one = draw(7, duration_ms=60_000, down_after_ms=1_000, tracks_count=2)
    assert one == draw(7, duration_ms=60_000, down_after_ms=1_000, tracks_count=2)
    assert one != draw(8, duration_ms=60_000, down_after_ms=1_000, tracks_count=2)
    assert Schedule.from_json(one.to_json()) == one
    both = one.beside(draw(8, duration_ms=5_000, down_after_ms=1_000))
    assert len(both.tracks) == 3
    fewer = one.without(0, 1)
    assert fewer.tracks[0] == (one.tracks[0][0], *one.tracks[0][2:])
    assert fewer.tracks[1] == one.tracks[1]


def test_a_draw_has_every_kind_before_any_comes_again_and_only_what_its_mode_bears() -> None:
    for mode in Mode:
        steps = draw(1, duration_ms=600_000, down_after_ms=1_000, mode=mode).tracks[0]
        claimed = [(k.name, t) for k in KINDS for t, modes in k.targets.items() if mode in modes]
        drawn = [(step.kind, step.target) for step in steps]
        assert set(drawn[: len(claimed)]) == set(claimed)
        assert steps[-1].settle
    by_name = {each.name: each for each in KINDS}
    for step in draw(2, duration_ms=600_000, down_after_ms=2_000).tracks[0]:
        low, high = by_name[step.kind].hold
        assert low * 2_000 <= step.hold_ms <= high * 2_000
        assert set(step.strength) == set(by_name[step.kind].strengths)


def test_a_draw_says_when_nothing_is_left() -> None:
    with pytest.raises(ValueError, match="no fault is possible"):
        draw(1, duration_ms=1, down_after_ms=1, possible=lambda _kind, _target: False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a schedule"),
        ("[]", "not a schedule"),
        ("{}", "format"),
        ('{"format": 2}', "format"),
        ('{"format": 1}', "tracks"),
        ('{"format": 1, "down_after_ms": 1, "tracks": [[{"kind": "x", "target": "y"}]]}', "'x'"),
        ('{"format": 1, "down_after_ms": 1, "tracks": [[{"kind": "kill", "target": "y"}]]}', "y"),
        ('{"format": 1, "down_after_ms": 1, "tracks": [[{"kind": "kill", "colour": "y"}]]}', "col"),
    ],
)
def test_an_invalid_schedule_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        Schedule.from_json(text)
    assert "\n" not in str(caught.value)


def test_a_schedule_by_hand_needs_no_seed() -> None:
    schedule = Schedule(((Step("kill", "master", hold_ms=5),),), down_after_ms=1_000)
    assert Schedule.from_json(schedule.to_json()) == schedule
