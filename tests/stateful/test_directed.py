"""Directed simulations: with the mistake a promise breaks, without it none does."""

from __future__ import annotations

import pytest

from tests.bugs.registry import BUGS, Bug, texts_of
from tests.stateful.directed import (
    ask_a_deposed_master,
    enqueued_during_an_election,
    repeat_of_a_lost_reply,
)

ELECTION = next(bug for bug in BUGS if bug.name == "elections are not asked for")
ASKED = [bug for bug in BUGS if bug.ask is not None]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("ERROR")


def test_a_repeat_is_not_acknowledged_before_its_first_is_replicated(stateful_socket: str) -> None:
    """The repeat finds the task, on a new connection that has written nothing before."""
    event, held = repeat_of_a_lost_reply(stateful_socket, None)
    assert not event.ok
    assert held == []


def test_without_its_write_it_would_be(stateful_socket: str) -> None:
    bug = next(bug for bug in BUGS if bug.name == "dedup path does not write")
    event, held = repeat_of_a_lost_reply(stateful_socket, texts_of(bug))
    assert event.ok, "G2 no loss: the simulation has lost its point"
    assert held == []


@pytest.mark.parametrize("bug", ASKED, ids=lambda bug: bug.name)
def test_a_deposed_master_does_not_deny_what_it_never_had(stateful_socket: str, bug: Bug) -> None:
    """It never had the task: its "not found" is false, and is sent only with the mutation."""
    assert bug.ask is not None
    assert bug.patch is not None
    honest = ask_a_deposed_master(stateful_socket, bug.ask)
    assert honest.error is None or honest.error.reason != "TASK_NOT_FOUND"
    lie = ask_a_deposed_master(stateful_socket, bug.ask, bug.patch)
    assert lie.error is not None, f"{bug.name}: the simulation has lost its point"
    assert lie.error.reason == "TASK_NOT_FOUND"


def test_nothing_is_acknowledged_beside_an_election_that_completes_elsewhere(
    stateful_socket: str,
) -> None:
    event, held = enqueued_during_an_election(stateful_socket)
    assert (event.ok, held) == (False, False)
    assert event.error is not None
    assert "voted in a newer epoch" in str(event.error)


def test_without_the_question_it_would_be(stateful_socket: str) -> None:
    assert ELECTION.patch is not None
    event, held = enqueued_during_an_election(stateful_socket, ELECTION.patch)
    assert (event.ok, held) == (True, False), "G2 no loss: the simulation has lost its point"
