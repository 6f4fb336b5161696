"""The unbroken-barrier rule by hand: each part, and the loss that it prevents."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from ddq.store.barrier import (
    NO_ELECTIONS,
    Answer,
    Chain,
    DataNodes,
    ElectionAnswer,
    Policy,
    Timing,
)
from ddq.task import Durability

WINDOW_S, SETTLE_S, DOWN_AFTER_S, ELECTION_S = 0.5, 2.0, 1.0, 13.0
NODES = DataNodes.parse("a:1,b:1,c:1")
A, B, C = ("a", 1), ("b", 1), ("c", 1)
TIMING = Timing(WINDOW_S, SETTLE_S, DOWN_AFTER_S, ELECTION_S)
PENDING = ElectionAnswer("Sentinel s2 voted in epoch 7", complete=False)
INCOMPLETE = ElectionAnswer("", complete=False)


@dataclass
class Connection:
    """Barriers on one connection to node a; times in seconds.

    Attributes:
        elections: what the Sentinels answer, each time the chain wants to know.
        questions: when they were asked.
    """

    mode: Durability = Durability.QUORUM
    elections: ElectionAnswer = NO_ELECTIONS
    nodes: DataNodes = NODES
    timing: Timing = TIMING
    now_s: float = 100.0
    trusted_s: float = float("-inf")
    questions: list[float] = field(default_factory=list)
    chain: Chain = field(init=False)

    def __post_init__(self) -> None:
        policy = Policy(self.mode, fsync=False, nodes=self.nodes, timing=self.timing)
        self.chain = Chain(policy, self.trusted_s)

    def barrier(
        self, acked: int, *attached: tuple[str, int], after_s: float = 0.1, took_s: float = 0.01
    ) -> bool:
        """Whether replies may leave after a barrier that was sent ``after_s`` later."""
        sent_s = self.now_s + after_s
        self.now_s = sent_s + took_s
        good = self.chain.judge(Answer(sent_s, self.now_s, acked, frozenset(attached)))
        if self.chain.wants_elections(self.now_s):
            self.questions.append(self.now_s)
            self.chain.hear(self.now_s, self.elections)
        return good

    def settle(self, *attached: tuple[str, int]) -> float:
        """A majority confirms until it counts; returns how long that took."""
        began_s = self.now_s
        for _ in range(300):
            if self.barrier(1, *attached):
                return self.now_s - began_s
        raise AssertionError(f"it never settled: {self.chain.broken_because}")

    def never_settles(self, *attached: tuple[str, int]) -> None:
        """A majority confirms for longer than any of the rule's times, and does not count."""
        for _ in range(300):
            assert not self.barrier(1, *attached)
            assert self.chain.wants_all(self.now_s)


def test_all_replicas_count_at_once_and_a_majority_only_once_the_chain_has_settled() -> None:
    """A new connection may lead to a master that was replaced a moment ago, and whose other replica
    does not know yet."""
    connection = Connection()
    assert connection.barrier(2, B, C)
    started_s = connection.now_s
    while not connection.barrier(1, B, C):
        assert connection.now_s < started_s + SETTLE_S + 0.5
    assert connection.now_s >= started_s + SETTLE_S
    assert connection.barrier(1, B, C)
    assert not connection.chain.wants_all(connection.now_s)


def test_a_chain_silent_for_long_enough_for_a_replacement_starts_again() -> None:
    """The master was paused: meanwhile b was promoted, and c still follows the old one."""
    connection = Connection()
    connection.settle(C)
    assert not connection.barrier(1, C, took_s=WINDOW_S)
    assert not connection.barrier(1, C)
    assert connection.chain.wants_all(connection.now_s)
    assert "passed without a confirmed barrier" in connection.chain.broken_because


def test_a_while_without_requests_is_a_silence_too() -> None:
    connection = Connection()
    connection.settle(B, C)
    assert not connection.barrier(1, B, C, after_s=WINDOW_S)
    connection.settle(B, C)


def test_two_slow_barriers_in_a_row_are_a_silence() -> None:
    """Each within the window, and yet the last confirmation may be older than it: the first may
    have been confirmed right when it was sent, the second only when it was answered."""
    connection = Connection()
    connection.settle(B, C)
    assert connection.barrier(1, B, C, after_s=0.0, took_s=0.26)
    assert not connection.barrier(1, B, C, after_s=0.0, took_s=0.26)


def test_a_replica_that_leaves_may_have_been_promoted() -> None:
    """A planned failover, or one whose election lasted until the master was back: no silence."""
    connection = Connection()
    connection.settle(B, C)
    assert not connection.barrier(1, C)
    assert connection.chain.broken_because == "a replica has left"
    connection.settle(C)
    assert connection.barrier(1, B, C), "one that comes back does no harm"


def test_less_than_a_majority_starts_again() -> None:
    connection = Connection()
    connection.settle(B, C)
    assert not connection.barrier(0, B, C)
    assert not connection.barrier(1, B, C)


def test_a_stranger_voids_every_count() -> None:
    """WAIT cannot choose which replicas it counts."""
    for mode in (Durability.QUORUM, Durability.ALL):
        connection = Connection(mode)
        assert not connection.barrier(2, B, ("stranger", 1))
        assert not connection.barrier(3, B, C, ("stranger", 1))
        assert "stranger:1" in connection.chain.broken_because
        assert connection.barrier(2, B, C)
    counted = Connection(nodes=DataNodes(3))
    assert not counted.barrier(3, B, C, ("stranger", 1))
    assert "3 replicas instead of 2" in counted.chain.broken_because


def test_all_waits_for_all_however_settled() -> None:
    connection = Connection(Durability.ALL)
    for _ in range(60):
        assert not connection.barrier(1, B, C)
        assert connection.chain.wants_all(connection.now_s)
    assert connection.barrier(2, B, C)


# The election -----------------------------------------------------------------------------------


def test_an_election_that_outlives_its_cause_keeps_a_majority_from_counting() -> None:
    """Pause, then isolate: the master's host was paused until a Sentinel had selected b; then b's
    host was cut off. b becomes master behind the cut, and a and c continue as if nothing were."""
    connection = Connection(elections=PENDING)
    connection.never_settles(C)
    assert connection.chain.broken_because == PENDING.pending
    assert connection.barrier(2, B, C), "all replicas count: whichever is promoted has the write"
    connection.elections = NO_ELECTIONS
    connection.settle(C)


def test_the_sentinels_are_asked_only_once_the_settling_time_is_over() -> None:
    """Elections begin until the master has answered a Sentinel again: an answer from before says
    nothing about those."""
    connection = Connection()
    connection.barrier(1, B, C)
    first_s = connection.now_s
    connection.chain.hear(connection.now_s, NO_ELECTIONS)
    connection.settle(B, C)
    assert connection.questions
    assert min(connection.questions) >= first_s + SETTLE_S


def test_an_answer_from_before_a_break_does_not_count() -> None:
    connection = Connection(elections=PENDING)
    for _ in range(30):
        connection.barrier(1, B, C)
    asked_s = connection.now_s
    assert not connection.barrier(0, B, C)
    assert not connection.barrier(1, B, C)
    connection.chain.hear(asked_s, NO_ELECTIONS)
    connection.never_settles(B, C)


def test_settling_counts_from_the_first_confirmation_after_the_break() -> None:
    """The master is cut off for long; each barrier waits for a share of the window and comes up
    short. Counted from the last of those, settling would be over when the master is back."""
    connection = Connection(timing=Timing(15.0, SETTLE_S, 30.0, ELECTION_S))
    connection.settle(B, C)
    assert not connection.barrier(0, B, C, took_s=3.75)
    assert not connection.barrier(1, B, C, took_s=3.0), "confirmed when the cut was over"
    back_s = connection.now_s
    while not connection.barrier(1, B, C):
        pass
    assert connection.now_s >= back_s + SETTLE_S


def test_a_barrier_counts_by_its_sending_not_by_its_answer() -> None:
    """An answer that arrives late speaks of a moment at which replicas were still to leave."""
    timing = Timing(1.85, SETTLE_S, 3.7, ELECTION_S)
    connection = Connection(timing=timing)
    connection.barrier(1, B, C)
    settled_s = connection.now_s + SETTLE_S
    while connection.now_s + 0.1 < settled_s - 0.9:
        assert not connection.barrier(1, B, C)
    connection.now_s = settled_s - 0.9
    connection.chain.hear(settled_s, NO_ELECTIONS)
    assert not connection.barrier(1, B, C, after_s=0.0, took_s=1.7), "executed before the end"
    assert connection.barrier(1, B, C)


def test_a_sentinel_that_does_not_answer_may_have_begun_an_election_after_a_long_silence() -> None:
    """It voted for itself in the milliseconds before its host was cut off, and no other has
    received the vote. It gives up after its election time-out."""
    connection = Connection()
    connection.settle(B, C)
    connection.elections = INCOMPLETE
    assert not connection.barrier(1, C, took_s=DOWN_AFTER_S)
    assert connection.settle(C) >= ELECTION_S
    connection.elections = NO_ELECTIONS
    assert not connection.barrier(1, C, took_s=DOWN_AFTER_S)
    assert connection.settle(C) < SETTLE_S + 1, "every Sentinel answers"


def test_a_short_silence_begins_no_election() -> None:
    connection = Connection(elections=INCOMPLETE, trusted_s=99.9)
    assert connection.settle(B, C) < SETTLE_S + 1, "another master was named a moment ago"
    assert not connection.barrier(1, C, took_s=WINDOW_S)
    assert connection.settle(C) < SETTLE_S + 1


def test_a_second_break_does_not_shorten_the_wait_for_an_election() -> None:
    connection = Connection(elections=INCOMPLETE)
    assert not connection.barrier(1, C)
    began_s = connection.now_s
    assert not connection.barrier(1, C, took_s=WINDOW_S)
    connection.settle(C)
    assert connection.now_s >= began_s + ELECTION_S


def test_after_a_quiet_time_the_first_barrier_asks_for_all() -> None:
    """The window has passed, so a majority will not count: waiting for one only costs time."""
    connection = Connection()
    connection.settle(B, C)
    assert not connection.chain.wants_all(connection.now_s)
    assert connection.chain.wants_all(connection.now_s + WINDOW_S)


def test_the_windows_fit_into_what_a_sentinel_needs() -> None:
    timing = Timing.of(1.0)
    assert timing.window_s < 1.0
    assert timing.settle_s > 1.2, "a Sentinel's INFO period and two ticks"
    assert timing.election_s >= timing.settle_s + 16, "what a Sentinel may know, and wait for"


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("", DataNodes(1)),
        ("3", DataNodes(3)),
        ("a:1, b:1,c:1", NODES),
        ("[::1]:7", DataNodes(1, frozenset({("::1", 7)}))),
    ],
)
def test_data_nodes_are_read(text: str, nodes: DataNodes) -> None:
    assert DataNodes.parse(text) == nodes


@pytest.mark.parametrize("text", ["0", "a", "a:", ":1", "a:1,,b:1", "a:1,a:1", "-3"])
def test_data_nodes_that_cannot_be_read_are_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"^data_nodes .*give HOST:PORT"):
        DataNodes.parse(text)


@pytest.mark.parametrize(("count", "majority"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_a_majority_includes_the_master(count: int, majority: int) -> None:
    assert DataNodes(count).majority_replicas_count == majority
