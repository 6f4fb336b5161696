"""The router, where a Cluster's slot is on its way from one master to another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import redis.exceptions

from ddq.config import Settings
from ddq.metrics import null_metrics
from ddq.store.barrier import DataNodes, Timing
from ddq.store.connection import Command, Reply
from ddq.store.keys import ShardId
from ddq.store.router import Router, SlotMovingError
from ddq.store.scripts import default_scripts
from ddq.store.topology import Node
from tests.stateful.virtual import run_virtually
from tests.support.queue import error_of

NODE = Node("one", 6379)
DEADLINE_S = 12.0


class MovingSlot:
    """A topology of one node, whose slot is on its way until ``arrives_s``."""

    def __init__(self, arrives_s: float) -> None:
        self._arrives_s = arrives_s
        self.sends = 0

    async def node_of(self, key: str, deadline_s: float) -> Node:
        """See Topology.node_of."""
        return NODE

    def connect(self, node: Node) -> MovingSlot:
        """See Topology.connect."""
        return self

    async def send(self, commands: Sequence[Command], timeout_s: float) -> list[Reply]:
        """See Connection.send."""
        self.sends += 1
        if asyncio.get_running_loop().time() < self._arrives_s:
            return [redis.exceptions.TryAgainError("multiple keys") for _ in commands]
        return [[b"OK"] for _ in commands]

    def redirected(self, source: Node, reply: Reply) -> None:
        """See Topology.redirected."""

    def trusted_s(self, node: Node) -> float:
        """See Topology.trusted_s."""
        return float("-inf")

    def on_down_after(self, listener: Any) -> None:
        """See Topology.on_down_after."""

    def on_change(self, listener: Any) -> None:
        """See Topology.on_change."""

    def suspect(self, node: Node, error: BaseException | str) -> None:
        """See Topology.suspect."""

    async def close(self) -> None:
        """See Topology.close."""


async def run(topology: Any, **options: Any) -> float:
    """Runs one script; returns when its reply came."""
    scripts = default_scripts()
    router = Router(
        topology, scripts, Settings(), DataNodes.parse(""), Timing.of(5.0), null_metrics()
    )  # fmt: skip
    try:
        await router.run(scripts["get"], ShardId("a", 0).keys, [], DEADLINE_S, **options)
        return asyncio.get_running_loop().time()
    finally:
        await router.close()


def test_a_slot_that_moves_is_waited_for() -> None:
    took_s = run_virtually(run(MovingSlot(3.0)))
    assert took_s == pytest.approx(3.0, abs=0.1)


def test_a_slot_that_moves_is_refused_at_once_if_the_call_does_not_wait() -> None:
    async def scenario() -> float:
        topology = MovingSlot(3.0)
        error = await error_of(run(topology, waits_for_slot=False))
        assert isinstance(error, SlotMovingError)
        assert "being moved" in error.message
        assert topology.sends == 1
        return asyncio.get_running_loop().time()

    assert run_virtually(scenario()) == 0.0
