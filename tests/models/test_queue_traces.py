"""Traces of the specification, step by step, with every answer worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from models import operations as ops
from models.operations import State
from models.queue import Shard, backoff_ms, conserved, step

LEADER = b"L" * 16
ONE, TWO, THREE = b"1" * 16, b"2" * 16, b"3" * 16
NO_JITTER = ops.Policy(max_attempts=2, initial_backoff_ms=100, jitter_milli=0)


class SpecifiedShard:
    """A shard of the specification, the time, and shorthands of its requests."""

    def __init__(self) -> None:
        self.shard = Shard()
        self.now_ms = 1_000
        self.ask(ops.Acquire(LEADER, 60_000))

    def ask(self, *operations: ops.Operation, **more: Any) -> Any:
        """The result of one operation, the results of several, or the refusal's name."""
        request = ops.Request(operations, caller_ms=more.pop("caller_ms", self.now_ms), **more)
        self.shard, response = step(self.shard, request, self.now_ms)
        assert conserved(self.shard)
        if response.status != "OK":
            return response.status
        return response.results[0] if len(operations) == 1 else response.results

    def promote(self) -> int:
        """How many became ready."""
        moved: int = self.ask(ops.Promote(LEADER, 1, 60_000, 10))[1]
        return moved

    def reap(self) -> int:
        """How many leases were found to have expired."""
        moved: int = self.ask(ops.Reap(LEADER, 1, 60_000, (0.0, 0.0)))[1]
        return moved

    def lease(self, token: bytes, lease_ms: int = 50, **more: Any) -> Any:
        """The leases that one token brought."""
        return self.ask(ops.Retrieve(lease_ms, (token,)), **more)[2]

    def state(self, task_id: str) -> State:
        """Where a task is."""
        state: State = self.ask(ops.Get(task_id))[1][1]
        return state


@pytest.fixture
def model() -> SpecifiedShard:
    """A shard with a leader, at 1 s."""
    return SpecifiedShard()


def test_a_task_is_delivered_when_it_is_due_and_not_before(model: SpecifiedShard) -> None:
    model.ask(ops.Enqueue("a", b"x", ops.When(200)))
    model.now_ms = 1_199
    assert model.promote() == 0
    assert model.lease(ONE) == ()
    model.now_ms = 1_200
    assert model.promote() == 1
    assert model.lease(ONE) == (("a", ONE, 1_250),)
    assert model.ask(ops.Ack("a", ONE))[0] == "OK"
    assert model.state("a") == State.SUCCEEDED


def test_the_same_content_is_a_repeat_and_other_content_a_conflict(model: SpecifiedShard) -> None:
    created = model.ask(ops.Enqueue("a", b"x"))
    assert created[0] == "CREATED"
    assert model.ask(ops.Enqueue("a", b"x")) == ("EXISTS", *created[1:])
    assert model.ask(ops.Enqueue("a", b"y"))[0] == "CONFLICT"
    model.ask(ops.Cancel("a"))
    assert model.ask(ops.Enqueue("a", b"x"))[0] == "EXISTS", "a finished id stays taken"


def test_an_attempt_that_fails_comes_back_after_its_backoff_and_then_is_dead(
    model: SpecifiedShard,
) -> None:
    model.ask(ops.Enqueue("a", b"x", policy=NO_JITTER))
    model.promote()
    model.lease(ONE)
    assert model.ask(ops.Nack("a", ONE, error="no"))[1:] == (State.SCHEDULED, 9, 1_100)
    model.now_ms = 1_099
    assert model.promote() == 0
    model.now_ms = 1_100
    assert model.promote() == 1
    model.lease(TWO)
    assert model.ask(ops.Nack("a", TWO))[1] == State.DEAD
    assert model.ask(ops.Redrive(("a",)), request_id="r")[0] == 1
    assert model.ask(ops.Redrive(("a",)), request_id="r") == (0, 1, ("OK",))
    assert model.state("a") == State.SCHEDULED


def test_a_token_holds_until_another_token_has_the_task(model: SpecifiedShard) -> None:
    model.ask(ops.Enqueue("a", b"x", policy=NO_JITTER))
    model.promote()
    model.lease(ONE)
    model.now_ms = 1_050
    assert model.reap() == 1
    assert model.ask(ops.Extend("a", ONE, 50))[0] == "LEASE_LOST"
    model.now_ms = 1_150
    model.promote()
    assert model.lease(TWO)
    assert model.ask(ops.Ack("a", ONE))[0] == "LEASE_LOST", "superseded"
    model.now_ms = 1_200
    assert model.reap() == 1, "the last attempt: dead"
    assert model.ask(ops.Ack("a", TWO))[0] == "LEASE_LOST", "the end is the end"


def test_work_that_finished_late_is_not_wasted(model: SpecifiedShard) -> None:
    model.ask(ops.Enqueue("a", b"x", policy=NO_JITTER))
    model.promote()
    model.lease(ONE)
    model.now_ms = 1_050
    model.reap()
    assert model.ask(ops.Ack("a", ONE))[0] == "OK"
    assert model.ask(ops.Ack("a", ONE))[0] == "OK", "the verdict is repeated"
    assert model.state("a") == State.SUCCEEDED


def test_cancel_is_truthful_in_every_state(model: SpecifiedShard) -> None:
    assert model.ask(ops.Cancel("a"))[0] == "NOT_FOUND"
    model.ask(ops.Enqueue("a", b"x"), ops.Enqueue("b", b"x"))
    assert model.ask(ops.Cancel("a"))[0] == "CANCELLED"
    assert model.ask(ops.Cancel("a"))[0] == "ALREADY"
    model.promote()
    model.lease(ONE)
    assert model.ask(ops.Cancel("b"))[0] == "LEASED"
    assert model.ask(ops.Cancel("b", revoke=True))[0] == "CANCELLED"
    assert model.ask(ops.Ack("b", ONE))[0] == "LEASE_LOST"
    model.ask(ops.Enqueue("c", b"x"))
    model.promote()
    model.lease(TWO)
    model.ask(ops.Ack("c", TWO))
    assert model.ask(ops.Cancel("c"))[0] == "FINISHED"


def test_a_repeated_cancel_spares_the_next_life_of_the_id(model: SpecifiedShard) -> None:
    model.ask(ops.Enqueue("a", b"x"))
    first = model.ask(ops.Cancel("a"), request_id="r")
    model.ask(ops.Enqueue("a", b"y", on_conflict="replace_finished"), request_id="s")
    assert model.ask(ops.Cancel("a"), request_id="r") == ("ALREADY", *first[1:])
    assert model.state("a") == State.SCHEDULED


def test_release_gives_the_attempt_back(model: SpecifiedShard) -> None:
    model.ask(ops.Enqueue("a", b"x", policy=NO_JITTER))
    model.promote()
    model.lease(ONE)
    assert model.ask(ops.Release("a", ONE))[0] == "OK"
    assert model.ask(ops.Get("a"))[1][5] == 0, "attempts"
    assert model.lease(TWO)
    assert model.ask(ops.Get("a"))[1][4] == 1, "it was promoted once"


def test_a_repeated_retrieve_leases_nothing_new(model: SpecifiedShard) -> None:
    model.ask(ops.Enqueue("a", b"x"), ops.Enqueue("b", b"x"))
    model.promote()
    assert model.lease(ONE, request_id="r") == (("a", ONE, 1_050),)
    assert model.lease(TWO, request_id="r") == (("a", ONE, 1_050),)
    model.ask(ops.Ack("a", ONE))
    assert model.lease(THREE, request_id="r") == ()


def test_a_purge_takes_what_was_there_and_nothing_else(model: SpecifiedShard) -> None:
    model.ask(ops.Enqueue("a", b"x", ops.When(5_000)))
    model.ask(ops.Purge(0), request_id="p")
    model.ask(ops.Enqueue("b", b"x"))
    assert model.state("a") == State.PURGED, "gone at once, swept or not"
    model.ask(ops.Purge(100), request_id="p")
    assert model.state("b") == State.SCHEDULED


def test_only_the_leader_moves_tasks(model: SpecifiedShard) -> None:
    model.ask(ops.Enqueue("a", b"x"))
    assert model.ask(ops.Acquire(b"other" * 3 + b".", 10))[0] == "TAKEN"
    assert model.ask(ops.Promote(b"other" * 3 + b".", 1, 10, 10)) == ("NOT_LEADER", 0, None)
    assert model.ask(ops.Promote(LEADER, 2, 10, 10)) == ("NOT_LEADER", 0, None)
    model.ask(ops.Resign(LEADER, 1))
    assert model.ask(ops.Acquire(b"other" * 3 + b".", 10))[:2] == ("ACQUIRED", 2)
    assert model.ask(ops.Promote(LEADER, 1, 10, 10)) == ("NOT_LEADER", 0, None)


def test_a_challenger_has_to_outrank_the_leader(model: SpecifiedShard) -> None:
    other, third = b"other" * 3 + b".", b"third" * 3 + b"."
    assert model.ask(ops.Acquire(other, 10, rank=5, challenge=False))[0] == "TAKEN"
    assert model.ask(ops.Acquire(other, 10, rank=0, challenge=True))[0] == "TAKEN"
    assert model.ask(ops.Acquire(other, 10, rank=5, challenge=True))[:2] == ("ACQUIRED", 2)
    assert model.ask(ops.Promote(LEADER, 1, 10, 10)) == ("NOT_LEADER", 0, None)
    assert model.ask(ops.Acquire(third, 10, rank=5, challenge=True))[0] == "TAKEN"
    model.ask(ops.Resign(other, 2))
    assert model.ask(ops.Acquire(third, 10, rank=1))[0] == "ACQUIRED"
    assert model.ask(ops.Acquire(other, 10, rank=2, challenge=True))[0] == "ACQUIRED"


def test_a_clock_that_is_off_is_refused_and_leaves_no_mark(model: SpecifiedShard) -> None:
    model.now_ms = 3_600_000
    assert model.ask(ops.Get("a"), caller_ms=1_000) == "CLOCK_UNSAFE"
    assert model.shard.mark_ms == 1_000
    model.now_ms = 900
    model.ask(ops.Get("a"))
    assert model.shard.mark_ms == 1_000, "time does not run back"


def test_a_request_that_comes_too_late_does_nothing(model: SpecifiedShard) -> None:
    assert model.ask(ops.Enqueue("a", b"x"), not_after_ms=999) == "REQUEST_EXPIRED"
    assert model.ask(ops.Get("a")) == ("NOT_FOUND",)


@pytest.mark.parametrize(
    ("attempt", "random", "expected_ms"),
    [(1, 0.0, 100), (2, 0.0, 200), (3, 0.0, 400), (9, 0.0, 1_000), (1, 0.5, 105), (9, 1.0, 1_100)],
)
def test_backoff_grows_to_its_cap_and_jitter_comes_on_top(
    attempt: int, random: float, expected_ms: int
) -> None:
    policy = ops.Policy(5, 100, 1_000, 2_000, 100)
    assert backoff_ms(policy, attempt, random) == expected_ms
    assert backoff_ms(ops.Policy(5, 100, 1_000, 100_000, 0), 9_999, 0.0) == 1_000
