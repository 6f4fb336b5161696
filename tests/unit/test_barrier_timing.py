"""How long replies wait for the barrier, in virtual time: no figure here depends on the machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from ddq.config import Settings
from ddq.metrics import null_metrics
from ddq.store.barrier import NO_ELECTIONS, Barrier, DataNodes, ElectionAnswer, Policy, Timing
from ddq.store.commit import GroupCommit
from ddq.store.connection import Command, Reply, ReplyLostError
from ddq.store.router import Router
from ddq.store.scripts import default_scripts
from ddq.store.topology import Node
from ddq.task import Durability
from tests.stateful.virtual import VirtualLoop

T = TypeVar("T")
SCRIPTS = default_scripts()
TIMEOUT_S = 5.0
MOMENT_S = 0.001


def in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    """Runs it; time moves only when everything waits."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        task = loop.create_task(work)
        loop.settle()
        while not task.done():
            timer_s = loop.next_timer_s()
            assert timer_s is not None, "everything waits, and not for time"
            loop.move_to(timer_s)
        return task.result()
    finally:
        asyncio.set_event_loop(None)
        loop.close()


@dataclass
class FakeMaster:
    """A connection to a master; WAIT lasts until enough replicas confirm, or its time is over.

    Attributes:
        replicas_count: those that are attached and confirm at once.
    """

    replicas_count: int = 2
    waits_ms: list[int] = field(default_factory=list)

    async def send(self, commands: Sequence[Command], timeout_s: float) -> list[Reply]:
        try:
            async with asyncio.timeout(timeout_s):
                return [await self._answer(command) for command in commands]
        except TimeoutError as error:
            raise ReplyLostError("no answer in time") from error

    async def _answer(self, command: Command) -> Reply:
        await asyncio.sleep(MOMENT_S)
        if command[0] == "ROLE":
            attached = [[name, b"1", b"7"] for name in (b"b", b"c")]
            return [b"master", 7, attached]
        if command[0] == "WAIT":
            self.waits_ms.append(int(command[2]))
            if int(command[1]) > self.replicas_count:
                await asyncio.sleep(int(command[2]) / 1_000)
            # As the real one: it answers as soon as enough have confirmed.
            return min(int(command[1]), self.replicas_count)
        return b"ok"

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class Sentinels:
    """Answers the question about elections: first these, then that there is none."""

    answers: list[ElectionAnswer] = field(default_factory=list)
    asked_s: list[float] = field(default_factory=list)

    async def ask(self, deadline_s: float) -> ElectionAnswer:
        self.asked_s.append(asyncio.get_running_loop().time())
        return self.answers.pop(0) if self.answers else NO_ELECTIONS


def commit(
    master: FakeMaster,
    down_after_s: float,
    sentinels: Sentinels | None = None,
    suspended_s: Callable[[], float] = lambda: 0.0,
) -> GroupCommit:
    policy = Policy(Durability.QUORUM, False, DataNodes(3), Timing.of(down_after_s))
    return GroupCommit(
        master, TIMEOUT_S, 100, policy, heartbeat=SCRIPTS["heartbeat"],
        keep_s=60.0, ask_elections=(sentinels or Sentinels()).ask,
        suspended_s=suspended_s,
    )  # fmt: skip


async def answered_after_s(connection: GroupCommit) -> float:
    """How long one request waits for its reply."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await connection.run(SCRIPTS["survey"], ["key"], ["a"], began_s + 60.0)
    return loop.time() - began_s


@pytest.mark.parametrize("down_after_s", [1.0, 5.0, 30.0, 45.0, 300.0])
def test_with_one_replica_away_the_first_reply_takes_the_settling_time(down_after_s: float) -> None:
    """A barrier that waited for a share of the window took 11.5 s at a down-after of 30 s; from
    40 s on it outlasted the send's time-out, and QUORUM never confirmed anything."""

    async def play() -> float:
        connection = commit(FakeMaster(replicas_count=1), down_after_s)
        took_s = await answered_after_s(connection)
        await connection.close()
        return took_s

    settle_s = Timing.of(down_after_s).settle_s
    assert settle_s < in_virtual_time(play()) < settle_s + 1.0


@pytest.mark.parametrize("down_after_s", [1.0, 5.0, 30.0])
def test_after_a_quiet_time_a_healthy_store_answers_at_once(down_after_s: float) -> None:
    """The first barrier asked for a majority, which the window did not let count."""

    async def play() -> float:
        connection = commit(FakeMaster(), down_after_s)
        await answered_after_s(connection)
        await asyncio.sleep(3_600)
        took_s = await answered_after_s(connection)
        await connection.close()
        return took_s

    assert in_virtual_time(play()) == pytest.approx(3 * MOMENT_S)


def test_a_barrier_leaves_the_send_time_for_its_answer() -> None:
    async def play() -> list[int]:
        master = FakeMaster(replicas_count=1)
        connection = commit(master, 300.0)
        await answered_after_s(connection)
        await answered_after_s(connection)
        await connection.close()
        return master.waits_ms

    assert max(in_virtual_time(play())) <= TIMEOUT_S * 1_000 / 2


def test_replies_wait_while_an_election_is_pending_and_leave_at_the_sentinels_answer() -> None:
    pending = ElectionAnswer("Sentinel s2 voted in epoch 7", complete=False)

    async def play() -> tuple[float, list[float]]:
        sentinels = Sentinels([pending] * 3)
        connection = commit(FakeMaster(replicas_count=1), 1.0, sentinels)
        took_s = await answered_after_s(connection)
        await connection.close()
        return took_s, sentinels.asked_s

    took_s, asked_s = in_virtual_time(play())
    assert len(asked_s) == 4
    assert min(asked_s) >= Timing.of(1.0).settle_s
    assert asked_s[-1] < took_s < asked_s[-1] + 0.01, "a heartbeat follows the answer at once"


def test_a_suspension_of_the_servers_machine_breaks_the_chain() -> None:
    """Its clock stood still, and the master may have been replaced meanwhile."""
    slept_s = [0.0]

    async def play() -> tuple[float, float]:
        connection = commit(FakeMaster(replicas_count=1), 1.0, suspended_s=lambda: slept_s[0])
        await answered_after_s(connection)
        before_s = await answered_after_s(connection)
        slept_s[0] += 600.0
        after_s = await answered_after_s(connection)
        await connection.close()
        return before_s, after_s

    before_s, after_s = in_virtual_time(play())
    assert before_s < 0.1
    assert after_s > Timing.of(1.0).settle_s


def test_an_election_is_the_reason_that_callers_are_given() -> None:
    pending = ElectionAnswer("Sentinel s2 voted in epoch 7", complete=False)

    async def play() -> str:
        connection = commit(FakeMaster(replicas_count=1), 1.0, Sentinels([pending] * 1_000))
        loop = asyncio.get_running_loop()
        with pytest.raises(Exception, match="did not confirm") as caught:
            await connection.run(SCRIPTS["survey"], ["key"], ["a"], loop.time() + 10.0)
        await connection.close()
        return str(caught.value)

    assert "s2 voted in epoch 7" in in_virtual_time(play())


class FakeTopology:
    """A topology of one node that reports a down-after period."""

    kind = "sentinel"

    def __init__(self) -> None:
        self.hear: Any = None

    def on_change(self, listener: Any) -> None:
        """It never changes."""

    def on_down_after(self, listener: Any) -> None:
        self.hear = listener

    def connect(self, node: Node) -> FakeMaster:
        return FakeMaster()

    def trusted_s(self, node: Node) -> float:
        return float("-inf")

    async def node_of(self, key: str, deadline_s: float) -> Node:
        return Node("a", 1)

    async def elections(self, node: Node, deadline_s: float) -> ElectionAnswer:
        return NO_ELECTIONS

    async def close(self) -> None:
        """Nothing is open."""


def test_the_window_narrows_at_once_and_widens_only_without_findings() -> None:
    async def play() -> None:
        topology: Any = FakeTopology()
        router = Router(topology, SCRIPTS, Settings(), DataNodes(3), Timing.of(5.0), null_metrics())
        deadline_s = asyncio.get_running_loop().time() + 60
        quorum = Barrier(Durability.QUORUM)
        await router.run(SCRIPTS["survey"], ["key"], ["a"], deadline_s, quorum)
        (connection,) = router.connections().values()

        topology.hear(60_000)
        router.keep_time(Timing.of(60.0), may_widen=False)
        assert router.timing == Timing.of(5.0), "two Sentinels may replace the master after 5 s"
        assert list(router.connections().values()) == [connection]

        topology.hear(1_000)
        assert router.timing == Timing.of(1.0)
        assert not router.connections(), "open chains would keep the wider window"

        router.keep_time(Timing.of(5.0))
        assert router.timing == Timing.of(5.0)
        await router.close()

    in_virtual_time(play())
