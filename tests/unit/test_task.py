"""Values: states that agree everywhere, and a task's policy over that of its topic."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddq.errors import TaskNotFound
from ddq.task import HELD, OnConflict, Outcome, RetryOverrides, RetryPolicy, TaskState
from ddq.v1 import delay_queue_service_pb2, task_pb2
from models import operations
from tools.repo import ROOT

PRELUDE = (ROOT / "ddq/store/lua/prelude/control.lua").read_text()
MAYBE = st.none() | st.integers(0, 10_000)


def test_states_have_one_number_in_the_api_the_scripts_and_the_specification() -> None:
    api = {
        name.removeprefix("TASK_STATE_"): number
        for name, number in task_pb2.TaskState.items()
        if number
    }
    assert {state.name: int(state) for state in TaskState} == api
    assert {state.name: int(state) for state in operations.State} == api
    found = re.search(r"local ([A-Z, ]+) = ([\d, ]+)\nlocal NAME", PRELUDE)
    assert found is not None
    names, numbers = found[1].split(", "), map(int, found[2].split(", "))
    assert dict(zip(names, numbers, strict=True)) == api


def test_held_is_the_same_everywhere() -> None:
    found = re.search(r"local HELD = \{ ([a-z, ]+) \}", PRELUDE)
    assert found is not None
    flags = found[1].split(", ")
    assert {TaskState(n) for n, flag in enumerate(flags, 1) if flag == "true"} == HELD
    assert {state.name for state in operations.HELD} == {state.name for state in HELD}


def test_conflicts_have_the_numbers_of_the_api() -> None:
    api = {
        name.removeprefix("ON_CONFLICT_"): number
        for name, number in delay_queue_service_pb2.OnConflict.items()
        if number
    }
    assert {mode.name: int(mode) for mode in OnConflict} == api


@given(MAYBE, MAYBE, st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_policy_that_applies_is_sound(
    initial_ms: int | None, longest_ms: int | None, topic_initial_ms: int, topic_longest_ms: int
) -> None:
    topic_longest_ms = max(topic_initial_ms, topic_longest_ms)
    if initial_ms is not None and longest_ms is not None:
        longest_ms = max(initial_ms, longest_ms)
    topic = RetryPolicy(initial_backoff_ms=topic_initial_ms, max_backoff_ms=topic_longest_ms)
    policy = RetryOverrides(initial_backoff_ms=initial_ms, max_backoff_ms=longest_ms).over(topic)
    assert policy.initial_backoff_ms <= policy.max_backoff_ms
    # What the task asks for is what it gets.
    assert initial_ms is None or policy.initial_backoff_ms == initial_ms
    assert longest_ms is None or policy.max_backoff_ms == longest_ms


def test_an_unset_override_comes_from_the_topic() -> None:
    topic = RetryPolicy(7, 8, 9, 10.0, 0.11)
    assert RetryOverrides().over(topic) == topic
    # Zero is a value, not "unset".
    changed = RetryOverrides(max_attempts=1, initial_backoff_ms=0, jitter=0.0).over(topic)
    assert changed == RetryPolicy(1, 0, 9, 10.0, 0.0)


def test_an_outcome_is_a_value_or_raises() -> None:
    assert Outcome(value=0).unwrap() == 0
    with pytest.raises(TaskNotFound):
        Outcome(error=TaskNotFound("no")).unwrap()
