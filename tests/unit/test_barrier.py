"""The unbroken-barrier rule by hand: each part, and the loss that it prevents."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from ddq.store.barrier import Answer, Chain, DataNodes, Policy, Timing
from ddq.task import Durability

WINDOW_S, SETTLE_S = 0.5, 2.0
NODES = DataNodes.parse("a:1,b:1,c:1")
A, B, C = ("a", 1), ("b", 1), ("c", 1)
TIMING = Timing(WINDOW_S, SETTLE_S)


@dataclass
class Connection:
    """Barriers on one connection to node a; times in seconds."""

    mode: Durability = Durability.QUORUM
    nodes: DataNodes = NODES
    timing: Timing = TIMING
    now_s: float = 100.0
    chain: Chain = field(init=False)

    def __post_init__(self) -> None:
        self.chain = Chain(Policy(self.mode, fsync=False, nodes=self.nodes, timing=self.timing))

    def barrier(
        self, acked: int, *attached: tuple[str, int], after_s: float = 0.1, took_s: float = 0.01
    ) -> bool:
        """Whether replies may leave after a barrier that was sent ``after_s`` later."""
        sent_s = self.now_s + after_s
        self.now_s = sent_s + took_s
        return self.chain.judge(Answer(sent_s, self.now_s, acked, frozenset(attached)))

    def settle(self, *attached: tuple[str, int]) -> None:
        """A majority confirms until it counts."""
        for _ in range(30):
            if self.barrier(1, *attached):
                return
        raise AssertionError("it never settled")


def test_all_replicas_count_at_once_and_a_majority_only_once_the_chain_has_settled() -> None:
    """A new connection may lead to a master that was replaced a moment ago, and whose other replica
    nobody has told yet."""
    connection = Connection()
    assert connection.barrier(2, B, C)
    started_s = connection.now_s
    while not connection.barrier(1, B, C):
        assert connection.now_s < started_s + SETTLE_S
    assert connection.now_s >= started_s + SETTLE_S
    assert connection.barrier(1, B, C)
    assert not connection.chain.wants_all(connection.now_s)


def test_who_was_silent_for_long_enough_to_be_replaced_starts_again() -> None:
    """The master was paused: meanwhile b was promoted, and c still follows the old one."""
    connection = Connection()
    connection.settle(C)
    assert not connection.barrier(1, C, took_s=WINDOW_S)
    assert not connection.barrier(1, C)
    assert connection.chain.wants_all(connection.now_s)
    assert "without a confirmed barrier" in connection.chain.broken_because


def test_nobody_asked_for_a_while_is_a_silence_too() -> None:
    connection = Connection()
    connection.settle(B, C)
    assert not connection.barrier(1, B, C, after_s=WINDOW_S)
    connection.settle(B, C)


def test_two_slow_barriers_in_a_row_are_a_silence() -> None:
    """Each within the window, and yet nobody may have confirmed anything for longer: the first may
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
    assert connection.barrier(1, B, C), "one that comes back harms nobody"


def test_less_than_a_majority_starts_again() -> None:
    connection = Connection()
    connection.settle(B, C)
    assert not connection.barrier(0, B, C)
    assert not connection.barrier(1, B, C)


def test_a_stranger_voids_every_count() -> None:
    """WAIT cannot choose whom it counts."""
    for mode in (Durability.QUORUM, Durability.ALL):
        connection = Connection(mode)
        assert not connection.barrier(2, B, ("stray", 1))
        assert not connection.barrier(3, B, C, ("stray", 1))
        assert "stray:1" in connection.chain.broken_because
        assert connection.barrier(2, B, C)
    counted = Connection(nodes=DataNodes(3))
    assert not counted.barrier(3, B, C, ("stray", 1))
    assert "3 replicas instead of 2" in counted.chain.broken_because


def test_all_waits_for_all_however_settled() -> None:
    connection = Connection(Durability.ALL)
    for _ in range(60):
        assert not connection.barrier(1, B, C)
        assert connection.chain.wants_all(connection.now_s)
    assert connection.barrier(2, B, C)


def test_the_windows_fit_into_what_a_sentinel_needs() -> None:
    timing = Timing.of(1.0)
    assert timing.window_s < 1.0
    assert timing.settle_s > 1.2, "a Sentinel's INFO period and two ticks"


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
