"""What the Sentinels' answers say about an election, taken together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ddq.store.topology import Node
from ddq.store.topology.election import Ballot, Elections, read_vote

A, B = Node("a", 1), Node("b", 1)
S1, S2, S3 = (
    Ballot(
        name.encode(), name, A, config_epoch=6, vote_epoch=6, down=False, leads=False, known_count=3
    )
    for name in ("s1", "s2", "s3")
)


def test_votes_no_newer_than_the_master_are_no_election() -> None:
    answer = Elections().read(A, [S1, S2, S3], 3)
    assert (answer.pending, answer.complete) == ("", True)
    answer = Elections().read(A, [S1, S2], 3)
    assert (answer.pending, answer.complete) == ("", False)


def test_less_than_a_majority_says_nothing() -> None:
    """The votes of the others may have made a leader."""
    assert "1 of 3 Sentinels answer" in Elections().read(A, [S1], 3).pending
    assert (
        "2 of 5 Sentinels answer"
        in Elections().read(A, [S1, replace(S2, known_count=5)], 2).pending
    )
    assert "0 of 3" in Elections().read(A, [], 3).pending


def test_a_newer_vote_is_an_election_while_a_sentinel_does_not_answer() -> None:
    """s3 leads it, behind a cut; s2 gave it the vote that it needed."""
    pending = Elections().read(A, [S1, replace(S2, vote_epoch=7)], 3).pending
    assert "s2 voted in epoch 7" in pending
    assert "SENTINEL FAILOVER" in pending, "what an operator can do"


def test_a_leader_that_says_so_is_an_election() -> None:
    leading = replace(S3, vote_epoch=7, leads=True)
    assert "s3 is running a failover" in Elections().read(A, [S1, S2, leading], 3).pending


def test_a_sentinel_that_considers_the_master_down_is_about_to_begin_one() -> None:
    """The master returned, was cut off again for less than the window, and returned: no ping of
    that Sentinel has been answered since the first time."""
    doubting = replace(S2, down=True)
    assert "s2 considers the master down" in Elections().read(A, [S1, doubting, S3], 3).pending


def test_an_election_that_was_given_up_is_over_and_stays_over() -> None:
    """Else every aborted failover would make QUORUM wait for all replicas until the next one."""
    elections = Elections()
    given_up = [replace(S1, vote_epoch=7), replace(S2, vote_epoch=7), S3]
    assert elections.read(A, given_up, 3).pending == ""
    assert elections.read(A, given_up[:2], 3).pending == "", "also when a host is away later"
    newer = [replace(S1, vote_epoch=8), given_up[1]]
    assert "epoch 8" in elections.read(A, newer, 3).pending


def test_a_finished_election_is_remembered_by_sentinel() -> None:
    """One that was set up again counts its epochs from the start, under another run id."""
    elections = Elections()
    elections.read(A, [replace(S1, vote_epoch=9), S2, S3], 3)
    again = replace(S1, run_id=b"new", config_epoch=0, vote_epoch=1)
    fresh = replace(S2, run_id=b"other", config_epoch=0, vote_epoch=1)
    assert "epoch 1" in elections.read(A, [again, fresh], 3).pending


@pytest.mark.parametrize("epoch", [6, 7])
def test_a_sentinel_that_names_another_master_as_late_or_later(epoch: int) -> None:
    other = replace(S2, master=B, config_epoch=epoch, vote_epoch=epoch)
    assert f"names {B} as master since epoch {epoch}" in Elections().read(A, [S1, other], 3).pending


def test_a_sentinel_that_is_behind_is_not_trusted() -> None:
    behind = replace(S2, master=B, config_epoch=5, vote_epoch=5)
    assert Elections().read(A, [S1, behind, S3], 3).pending == ""


def test_sentinels_that_no_url_names_count() -> None:
    four = [replace(each, known_count=4) for each in (S1, S2)]
    assert "2 of 4" in Elections().read(A, four, 2).pending


def test_a_vote_counts_without_its_leader() -> None:
    """A Sentinel that was restarted has kept the epoch, and not the candidate of its vote."""
    assert read_vote([0, b"*", 7]) == (False, 7)
    assert read_vote([1, b"0123", 7]) == (True, 7)
    for reply in ([0, b"*", b"7"], [0, b"*"]):
        with pytest.raises((TypeError, ValueError)):
            read_vote(reply)
