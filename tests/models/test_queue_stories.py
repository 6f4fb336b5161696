"""A task's life in the specification, told step by step with every answer worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from models import operations as ops
from models.operations import State
from models.queue import Shard, backoff_ms, conserved, step

LEADER = b"L" * 16
ONE, TWO, THREE = b"1" * 16, b"2" * 16, b"3" * 16
NO_JITTER = ops.Policy(max_attempts=2, initial_backoff_ms=100, jitter_milli=0)


class Told:
    """A shard, the time, and a way to say what is asked of it."""

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
def told() -> Told:
    """A shard with a leader, at 1 s."""
    return Told()


def test_a_task_is_delivered_when_it_is_due_and_not_before(told: Told) -> None:
    told.ask(ops.Enqueue("a", b"x", ops.When(200)))
    told.now_ms = 1_199
    assert told.promote() == 0
    assert told.lease(ONE) == ()
    told.now_ms = 1_200
    assert told.promote() == 1
    assert told.lease(ONE) == (("a", ONE, 1_250),)
    assert told.ask(ops.Ack("a", ONE))[0] == "OK"
    assert told.state("a") == State.SUCCEEDED


def test_the_same_content_is_a_repeat_and_other_content_a_conflict(told: Told) -> None:
    created = told.ask(ops.Enqueue("a", b"x"))
    assert created[0] == "CREATED"
    assert told.ask(ops.Enqueue("a", b"x")) == ("EXISTS", *created[1:])
    assert told.ask(ops.Enqueue("a", b"y"))[0] == "CONFLICT"
    told.ask(ops.Cancel("a"))
    assert told.ask(ops.Enqueue("a", b"x"))[0] == "EXISTS", "a finished id stays taken"


def test_an_attempt_that_fails_comes_back_after_its_backoff_and_then_is_dead(told: Told) -> None:
    told.ask(ops.Enqueue("a", b"x", policy=NO_JITTER))
    told.promote()
    told.lease(ONE)
    assert told.ask(ops.Nack("a", ONE, error="no"))[1:] == (State.SCHEDULED, 9, 1_100)
    told.now_ms = 1_099
    assert told.promote() == 0
    told.now_ms = 1_100
    assert told.promote() == 1
    told.lease(TWO)
    assert told.ask(ops.Nack("a", TWO))[1] == State.DEAD
    assert told.ask(ops.Redrive(("a",)), request_id="r")[0] == 1
    assert told.ask(ops.Redrive(("a",)), request_id="r") == (0, 1, ("OK",))
    assert told.state("a") == State.SCHEDULED


def test_a_token_holds_until_somebody_else_has_the_task(told: Told) -> None:
    told.ask(ops.Enqueue("a", b"x", policy=NO_JITTER))
    told.promote()
    told.lease(ONE)
    told.now_ms = 1_050
    assert told.reap() == 1
    assert told.ask(ops.Extend("a", ONE, 50))[0] == "LEASE_LOST"
    told.now_ms = 1_150
    told.promote()
    assert told.lease(TWO)
    assert told.ask(ops.Ack("a", ONE))[0] == "LEASE_LOST", "superseded"
    told.now_ms = 1_200
    assert told.reap() == 1, "the last attempt: dead"
    assert told.ask(ops.Ack("a", TWO))[0] == "LEASE_LOST", "the end is the end"


def test_work_that_finished_late_is_not_wasted(told: Told) -> None:
    told.ask(ops.Enqueue("a", b"x", policy=NO_JITTER))
    told.promote()
    told.lease(ONE)
    told.now_ms = 1_050
    told.reap()
    assert told.ask(ops.Ack("a", ONE))[0] == "OK"
    assert told.ask(ops.Ack("a", ONE))[0] == "OK", "the verdict is repeated"
    assert told.state("a") == State.SUCCEEDED


def test_cancel_is_truthful_in_every_state(told: Told) -> None:
    assert told.ask(ops.Cancel("a"))[0] == "NOT_FOUND"
    told.ask(ops.Enqueue("a", b"x"), ops.Enqueue("b", b"x"))
    assert told.ask(ops.Cancel("a"))[0] == "CANCELLED"
    assert told.ask(ops.Cancel("a"))[0] == "ALREADY"
    told.promote()
    told.lease(ONE)
    assert told.ask(ops.Cancel("b"))[0] == "LEASED"
    assert told.ask(ops.Cancel("b", revoke=True))[0] == "CANCELLED"
    assert told.ask(ops.Ack("b", ONE))[0] == "LEASE_LOST"
    told.ask(ops.Enqueue("c", b"x"))
    told.promote()
    told.lease(TWO)
    told.ask(ops.Ack("c", TWO))
    assert told.ask(ops.Cancel("c"))[0] == "FINISHED"


def test_a_repeated_cancel_spares_the_next_life_of_the_id(told: Told) -> None:
    told.ask(ops.Enqueue("a", b"x"))
    first = told.ask(ops.Cancel("a"), request_id="r")
    told.ask(ops.Enqueue("a", b"y", on_conflict="replace_finished"), request_id="s")
    assert told.ask(ops.Cancel("a"), request_id="r") == ("ALREADY", *first[1:])
    assert told.state("a") == State.SCHEDULED


def test_release_gives_the_attempt_back(told: Told) -> None:
    told.ask(ops.Enqueue("a", b"x", policy=NO_JITTER))
    told.promote()
    told.lease(ONE)
    assert told.ask(ops.Release("a", ONE))[0] == "OK"
    assert told.ask(ops.Get("a"))[1][5] == 0, "attempts"
    assert told.lease(TWO)
    assert told.ask(ops.Get("a"))[1][4] == 1, "it was promoted once"


def test_a_repeated_retrieve_leases_nothing_new(told: Told) -> None:
    told.ask(ops.Enqueue("a", b"x"), ops.Enqueue("b", b"x"))
    told.promote()
    assert told.lease(ONE, request_id="r") == (("a", ONE, 1_050),)
    assert told.lease(TWO, request_id="r") == (("a", ONE, 1_050),)
    told.ask(ops.Ack("a", ONE))
    assert told.lease(THREE, request_id="r") == ()


def test_a_purge_takes_what_was_there_and_nothing_else(told: Told) -> None:
    told.ask(ops.Enqueue("a", b"x", ops.When(5_000)))
    told.ask(ops.Purge(0), request_id="p")
    told.ask(ops.Enqueue("b", b"x"))
    assert told.state("a") == State.PURGED, "gone at once, swept or not"
    told.ask(ops.Purge(100), request_id="p")
    assert told.state("b") == State.SCHEDULED


def test_only_the_leader_moves_tasks(told: Told) -> None:
    told.ask(ops.Enqueue("a", b"x"))
    assert told.ask(ops.Acquire(b"other" * 3 + b".", 10))[0] == "TAKEN"
    assert told.ask(ops.Promote(b"other" * 3 + b".", 1, 10, 10)) == ("NOT_LEADER", 0, None)
    assert told.ask(ops.Promote(LEADER, 2, 10, 10)) == ("NOT_LEADER", 0, None)
    told.ask(ops.Resign(LEADER, 1))
    assert told.ask(ops.Acquire(b"other" * 3 + b".", 10))[:2] == ("ACQUIRED", 2)
    assert told.ask(ops.Promote(LEADER, 1, 10, 10)) == ("NOT_LEADER", 0, None)


def test_a_challenger_has_to_outrank_the_leader(told: Told) -> None:
    other, third = b"other" * 3 + b".", b"third" * 3 + b"."
    assert told.ask(ops.Acquire(other, 10, rank=5, challenge=False))[0] == "TAKEN"
    assert told.ask(ops.Acquire(other, 10, rank=0, challenge=True))[0] == "TAKEN"
    assert told.ask(ops.Acquire(other, 10, rank=5, challenge=True))[:2] == ("ACQUIRED", 2)
    assert told.ask(ops.Promote(LEADER, 1, 10, 10)) == ("NOT_LEADER", 0, None)
    assert told.ask(ops.Acquire(third, 10, rank=5, challenge=True))[0] == "TAKEN"
    told.ask(ops.Resign(other, 2))
    assert told.ask(ops.Acquire(third, 10, rank=1))[0] == "ACQUIRED"
    assert told.ask(ops.Acquire(other, 10, rank=2, challenge=True))[0] == "ACQUIRED"


def test_a_clock_that_is_off_is_refused_and_leaves_no_mark(told: Told) -> None:
    told.now_ms = 3_600_000
    assert told.ask(ops.Get("a"), caller_ms=1_000) == "CLOCK_UNSAFE"
    assert told.shard.mark_ms == 1_000
    told.now_ms = 900
    told.ask(ops.Get("a"))
    assert told.shard.mark_ms == 1_000, "time does not run back"


def test_a_request_that_comes_too_late_does_nothing(told: Told) -> None:
    assert told.ask(ops.Enqueue("a", b"x"), not_after_ms=999) == "REQUEST_EXPIRED"
    assert told.ask(ops.Get("a")) == ("NOT_FOUND",)


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
