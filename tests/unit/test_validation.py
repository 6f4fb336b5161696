"""Durations and times: rounded up to whole milliseconds, bounded, and named when they are wrong."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from ddq.config import LIMITS, UNLIMITED_ATTEMPTS
from ddq.errors import InvalidArgument, PayloadTooLarge
from ddq.server import validation as check
from ddq.server.validation import Problems
from ddq.task import OnConflict, Schedule
from ddq.v1.task_pb2 import RetryPolicy, TaskSpec

DAY_S = 86_400


def problems_of(ask: Callable[[Problems], object]) -> dict[str, str]:
    """Field -> complaint."""
    problems = Problems()
    ask(problems)
    try:
        problems.raise_if_any()
    except InvalidArgument as error:
        return {violation.field: violation.description for violation in error.violations}
    return {}


def read_ms(value: Duration, least_ms: int = 0, most_ms: int = 10**12) -> int:
    problems = Problems()
    ms = check.duration_ms(problems, value, "delay", least_ms=least_ms, most_ms=most_ms)
    problems.raise_if_any()
    return ms


@given(st.integers(0, 10 * 365 * DAY_S), st.integers(0, 999_999_999))
def test_a_duration_is_rounded_up(seconds: int, nanos: int) -> None:
    ms = read_ms(Duration(seconds=seconds, nanos=nanos))
    exact_ms = Fraction(seconds * 10**9 + nanos, 10**6)
    # Never sooner than was asked for, and by less than a millisecond later.
    assert 0 <= ms - exact_ms < 1


@given(st.integers(0, 253_402_300_799), st.integers(0, 999_999_999))
def test_a_timestamp_is_rounded_up(seconds: int, nanos: int) -> None:
    problems = Problems()
    ms = check.timestamp_ms(problems, Timestamp(seconds=seconds, nanos=nanos), "due_time")
    problems.raise_if_any()
    assert 0 <= ms - Fraction(seconds * 10**9 + nanos, 10**6) < 1


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (Duration(seconds=-1), "is negative"),
        (Duration(nanos=-1), "is negative"),
        (Duration(seconds=1, nanos=-1), "is not a valid duration"),
        (Duration(seconds=-1, nanos=1), "is not a valid duration"),
        (Duration(nanos=1_000_000_000), "is not a valid duration"),
        (Duration(nanos=99_000_000), "is 99ms; give 100ms to 1s"),
        (Duration(seconds=1, nanos=1), "is 1s1ms; give 100ms to 1s"),
    ],
)
def test_a_duration_out_of_bounds_is_named(value: Duration, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint) as caught:
        read_ms(value, least_ms=100, most_ms=1_000)
    assert [violation.field for violation in caught.value.violations] == ["delay"]


@pytest.mark.parametrize("ms", [100, 1_000])
def test_the_bounds_themselves_are_allowed(ms: int) -> None:
    value = Duration(seconds=ms // 1_000, nanos=ms % 1_000 * 10**6)
    assert read_ms(value, least_ms=100, most_ms=1_000) == ms


@pytest.mark.parametrize(
    "value",
    [
        Timestamp(nanos=-1),
        Timestamp(nanos=10**9),
        Timestamp(seconds=253_402_300_800),
        # Below year 1: it was taken for a time in the past, and the task for due.
        Timestamp(seconds=-62_135_596_801),
    ],
)
def test_an_invalid_timestamp_is_reported(value: Timestamp) -> None:
    found = problems_of(lambda problems: check.timestamp_ms(problems, value, "due_time"))
    (description,) = found.values()
    assert description.startswith("is not a valid timestamp")
    assert "years 1 to 9999" in description


def test_a_schedule_is_now_or_relative_or_absolute() -> None:
    problems = Problems()
    now_ms = 1_000_000
    assert check.schedule(problems, TaskSpec(), now_ms) == Schedule()
    delay = TaskSpec(delay=Duration(nanos=1))
    assert check.schedule(problems, delay, now_ms) == Schedule(1)
    due = TaskSpec(due_time=Timestamp(seconds=2, nanos=1))
    assert check.schedule(problems, due, now_ms) == Schedule(2_001, absolute=True)
    long_ago = TaskSpec(due_time=Timestamp(seconds=-5))
    assert check.schedule(problems, long_ago, now_ms) == Schedule(0, absolute=True)
    problems.raise_if_any()


def test_a_due_time_too_far_ahead_is_named() -> None:
    limit_s = LIMITS.delay_max_ms // 1_000
    within = TaskSpec(due_time=Timestamp(seconds=limit_s))
    beyond = TaskSpec(due_time=Timestamp(seconds=limit_s, nanos=1))
    assert problems_of(lambda problems: check.schedule(problems, within, 0)) == {}
    assert "due_time" in problems_of(lambda problems: check.schedule(problems, beyond, 0))


@pytest.mark.parametrize(
    ("name", "fine"),
    [
        ("a", True), ("A-b_c.9", True), ("x" * 128, True), ("", False), ("x" * 129, False),
        ("a b", False), ("a:b", False), ("{a}", False), ("ä", False), ("a\n", False),
    ],
)  # fmt: skip
def test_names_of_topics(name: str, fine: bool) -> None:
    found = problems_of(lambda problems: check.topic_name(problems, name))
    assert (found == {}) is fine


@pytest.mark.parametrize(
    ("task_id", "fine"),
    [
        ("a", True), ("ä" * 128, True), ("a b:{c}", True), ("", False), ("ä" * 129, False),
        ("a\n", False), ("\x7f", False), ("\x00", False),
    ],
)  # fmt: skip
def test_ids_of_tasks(task_id: str, fine: bool) -> None:
    found = problems_of(lambda problems: check.task_id(problems, task_id))
    assert (found == {}) is fine


@pytest.mark.parametrize(
    ("value", "required", "fine"),
    [("", False, True), ("", True, False), ("x" * 64, True, True), ("x" * 65, False, False)],
)
def test_request_ids(value: str, required: bool, fine: bool) -> None:
    found = problems_of(lambda problems: check.request_id(problems, value, required=required))
    assert (found == {}) is fine


@pytest.mark.parametrize(("size", "fine"), [(0, False), (15, False), (16, True), (17, False)])
def test_lease_tokens(size: int, fine: bool) -> None:
    found = problems_of(lambda problems: check.lease_token(problems, b"x" * size))
    assert (found == {}) is fine


def test_a_number_of_an_enumeration_that_is_not_known_is_named() -> None:
    def read(value: int) -> Callable[[Problems], object]:
        return lambda problems: check.enum(
            problems, value, OnConflict, "on_conflict", default=OnConflict.FAIL
        )

    assert problems_of(read(0)) == problems_of(read(5)) == {}
    assert "known are 1, 2, 3, 4, 5" in problems_of(read(6))["on_conflict"]


def test_an_id_twice_in_a_batch_is_named() -> None:
    found = problems_of(
        lambda problems: check.unique_ids(problems, ["a", "b", "a", "", ""], "items")
    )
    assert found == {"items[2]": "has the id of items[0]; send it once"}


def test_a_payload_that_is_too_large_is_an_error_of_its_own_unless_more_is_wrong() -> None:
    problems = Problems()
    check.payload(problems, b"x" * (LIMITS.payload_max_bytes + 1))
    with pytest.raises(PayloadTooLarge):
        problems.raise_if_any()
    check.topic_name(problems, "")
    with pytest.raises(InvalidArgument, match="and 1 more") as caught:
        problems.raise_if_any()
    assert not isinstance(caught.value, PayloadTooLarge)


@pytest.mark.parametrize(
    ("policy", "fields"),
    [
        (RetryPolicy(), []),
        (RetryPolicy(max_attempts=1, multiplier=1, jitter=0), []),
        (RetryPolicy(max_attempts=10_000, multiplier=100, jitter=1), []),
        (RetryPolicy(max_attempts=UNLIMITED_ATTEMPTS), []),
        (RetryPolicy(max_attempts=UNLIMITED_ATTEMPTS - 1), ["max_attempts"]),
        (RetryPolicy(max_attempts=0), ["max_attempts"]),
        (RetryPolicy(max_attempts=10_001), ["max_attempts"]),
        (RetryPolicy(multiplier=0.99), ["multiplier"]),
        (RetryPolicy(multiplier=float("nan")), ["multiplier"]),
        (RetryPolicy(multiplier=float("inf")), ["multiplier"]),
        (RetryPolicy(jitter=-0.1), ["jitter"]),
        (RetryPolicy(jitter=1.01), ["jitter"]),
        (
            RetryPolicy(initial_backoff=Duration(seconds=2), max_backoff=Duration(seconds=1)),
            ["max_backoff"],
        ),
    ],
)
def test_retry_policies(policy: RetryPolicy, fields: list[str]) -> None:
    assert list(problems_of(lambda problems: check.retry_policy(problems, policy))) == fields


def test_headers() -> None:
    fine = {f"k{n}": "v" for n in range(64)}
    for headers, is_fine in [
        ({}, True), (fine, True), ({**fine, "one more": ""}, False), ({"": "v"}, False),
        ({"k" * 128: ""}, True), ({"k" * 129: ""}, False),
        ({"k": "v" * (16 * 1024 - 1)}, True), ({"k": "v" * (16 * 1024)}, False),
    ]:  # fmt: skip
        found = problems_of(partial(check.headers, values=headers))
        assert (found == {}) is is_fine


@pytest.mark.parametrize("character", ["\x00", "\x1f", "\x7f", "\x80", "\x9f"])
def test_an_id_has_no_control_characters(character: str) -> None:
    assert problems_of(lambda problems: check.task_id(problems, f"a{character}b")) == {
        "id": "has control characters; leave them out"
    }


@pytest.mark.parametrize("character", [" ", "~", "\xa0", "é", "鳥"])
def test_an_id_may_have_any_other_character(character: str) -> None:
    assert problems_of(lambda problems: check.task_id(problems, f"a{character}b")) == {}
