"""The router's table of connections: bounded, and no open connection is missing in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddq.config import Settings
from ddq.errors import DdqError, StoreUnreachable
from ddq.metrics import Metrics
from ddq.store.barrier import FAST, Barrier, DataNodes, Timing
from ddq.store.commit import PIPELINE_MAX_COUNT
from ddq.store.connection import Command, Reply
from ddq.store.pending import Committed, UnconfirmedReplies
from ddq.store.router import Router
from ddq.store.scripts import default_scripts
from ddq.store.topology import Node
from ddq.task import Durability

SCRIPTS = default_scripts()
NODES = (Node("a", 1), Node("b", 1))
BARRIERS = (FAST, Barrier(Durability.QUORUM))
TIMINGS = (Timing.of(5.0), Timing.of(6.0))
ANSWERS: dict[object, Reply] = {"WAIT": 0, "ROLE": [b"master", 1, []]}


class FakeConnection:
    """Answers when ``free`` is set, and knows whether it is open."""

    def __init__(self, node: Node, free: asyncio.Event) -> None:
        self.node = node
        self.open = True
        self._free = free

    async def send(self, commands: Sequence[Command], timeout_s: float) -> list[Reply]:
        await self._free.wait()
        return [ANSWERS.get(command[0], b"done") for command in commands]

    async def close(self) -> None:
        self.open = False


class FakeTopology:
    """Two nodes, one of which is the master."""

    kind = "sentinel"

    def __init__(self) -> None:
        self.master = NODES[0]
        self.made: list[FakeConnection] = []
        self.free = asyncio.Event()
        self._listener: Callable[[Node, str], None]

    @property
    def open(self) -> list[FakeConnection]:
        return [connection for connection in self.made if connection.open]

    def on_change(self, listener: Callable[[Node, str], None]) -> None:
        self._listener = listener

    def on_down_after(self, listener: Any) -> None:
        """It never changes."""

    def trusted_s(self, node: Node) -> float:
        return float("-inf")

    async def node_of(self, key: str, deadline_s: float) -> Node:
        return self.master

    def connect(self, node: Node) -> FakeConnection:
        self.made.append(FakeConnection(node, self.free))
        return self.made[-1]

    def suspect(self, node: Node, error: BaseException | str) -> None:
        """It is well."""

    def depose(self, new: Node) -> None:
        old, self.master = self.master, new
        self._listener(old, "it was deposed")

    async def close(self) -> None:
        """It has none of its own."""


class Scene:
    """A router, and requests that wait in it."""

    def __init__(self, metrics: Metrics | None = None) -> None:
        self.topology = FakeTopology()
        self.metrics = metrics or Metrics()
        self.router = Router(
            cast(Any, self.topology), SCRIPTS, Settings(), DataNodes(1), TIMINGS[0], self.metrics
        )
        self.asked: list[asyncio.Task[Committed]] = []

    def ask(self, count: int, barrier: Barrier = FAST) -> None:
        deadline_s = asyncio.get_running_loop().time() + 60
        for _ in range(count):
            run = self.router.run(SCRIPTS["survey"], ["key"], ["a"], deadline_s, barrier)
            self.asked.append(asyncio.create_task(run))

    async def settle(self) -> None:
        """Lets all tasks run that can."""
        for _ in range(50):
            await asyncio.sleep(0)

    def check(self) -> None:
        """Each connection that is open is in the table, under its own node."""
        connections = self.router.connections()
        held = {
            commit._sender._connection._inner: node  # type: ignore[attr-defined]
            for (node, _), commit in connections.items()
        }
        assert {each: each.node for each in self.topology.open} == held
        assert len(held) <= len(NODES) * len(BARRIERS)


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scene())


def test_requests_that_waited_for_a_closed_connection_share_the_next_one() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.ask(3 * PIPELINE_MAX_COUNT)
        await scene.settle()
        scene.router.keep_time(TIMINGS[1])
        await scene.settle()
        scene.check()
        assert len(scene.topology.made) == 2
        scene.topology.depose(NODES[1])
        await scene.settle()
        assert [each.node for each in scene.topology.open] == [NODES[1]]
        scene.topology.free.set()
        outcomes = await asyncio.gather(*scene.asked, return_exceptions=True)
        assert sum(isinstance(each, Committed) for each in outcomes) == PIPELINE_MAX_COUNT
        await scene.router.close()
        assert not scene.topology.open

    play(scenario)


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "close", "depose", "answer", "stall", "settle"]),
        st.integers(0, 1),
        st.integers(1, 9),
    ),
    max_size=25,
)


@given(steps=STEPS)
def test_connections_stay_bounded_and_are_closed_with_their_node(steps: list[Step]) -> None:
    async def scenario() -> None:
        scene = Scene()
        topology, router = scene.topology, scene.router
        for kind, which, count in steps:
            if kind == "ask":
                scene.ask(count, BARRIERS[which])
            elif kind == "close":
                router.keep_time(TIMINGS[which])
            elif kind == "depose":
                topology.depose(NODES[which])
            elif kind == "answer":
                topology.free.set()
            elif kind == "stall":
                topology.free.clear()
            else:
                await scene.settle()
                scene.check()
                assert {each.node for each in topology.open} <= {topology.master}
        topology.free.set()
        outcomes = await asyncio.gather(*scene.asked, return_exceptions=True)
        assert all(isinstance(outcome, Committed | DdqError) for outcome in outcomes)
        await scene.settle()
        scene.check()
        await router.close()
        assert not topology.open

    # So that some always wait behind those that were sent.
    with mock.patch("ddq.store.commit.PIPELINE_MAX_COUNT", 2):
        play(scenario)


def test_a_request_that_comes_after_the_end_opens_nothing() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.ask(3)
        await scene.settle()
        await scene.router.close()
        scene.ask(1)
        outcomes = await asyncio.gather(*scene.asked, return_exceptions=True)
        # The first was sent.
        assert [type(outcome).__name__ for outcome in outcomes[:3]].count("Committed") == 0
        assert isinstance(outcomes[3], StoreUnreachable)
        assert not scene.topology.open

    play(scenario)


def test_metrics_may_be_read_while_the_table_changes() -> None:
    """In a thread of Prometheus's: here the change comes in the middle of the reading."""

    async def scenario() -> None:
        scene = Scene()
        scene.topology.free.set()
        scene.ask(1)
        scene.ask(1, BARRIERS[1])
        await asyncio.gather(*scene.asked)
        first, _ = scene.router.connections().values()

        class Disturbed:
            def __len__(self) -> int:
                scene.router._connection(NODES[1], FAST)
                return 0

        first._unconfirmed = Disturbed()  # type: ignore[assignment]
        assert scene.metrics.registry.get_sample_value("ddq_store_replies_held") == 0
        first._unconfirmed = UnconfirmedReplies()
        await scene.router.close()

    play(scenario)


@pytest.mark.parametrize("barrier", BARRIERS)
def test_a_late_request_removes_no_connection_but_the_one_it_had(barrier: Barrier) -> None:
    async def scenario() -> None:
        scene = Scene()
        for _ in ("sent", "waits"):
            scene.ask(1, barrier)
            await scene.settle()
        (old,) = scene.router.connections().values()
        scene.router.keep_time(TIMINGS[1])
        new = scene.router._connection(NODES[0], barrier)
        assert new is not old
        await scene.settle()
        assert list(scene.router.connections().values()) == [new]
        scene.topology.free.set()
        await asyncio.gather(*scene.asked, return_exceptions=True)
        await scene.router.close()

    play(scenario)
