"""Sentinels that lie, lag, hang and die: the master is still found, or it is said why not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from ddq.errors import StoreUnreachable
from ddq.store.connection import NotSentError, ReplyLostError
from ddq.store.topology import (
    Node,
    Replica,
    SentinelTopology,
    open_topology,
    parse_store_url,
    refresh,
    sentinel_report,
)
from ddq.store.topology import sentinel as sentinel_module
from tests.support.fake_redis import (
    FakeNode,
    FakeSentinel,
    ReplyError,
    hosts,
    running,
    until,
)


class Scene:
    """Three Sentinels, a master and a replica; the topology knows the first two Sentinels."""

    def __init__(self) -> None:
        self.sentinels = [FakeSentinel() for _ in range(3)]
        self.old = FakeNode("master")
        self.new = FakeNode("slave")
        self.topology: SentinelTopology
        self.changes: list[tuple[Node, str]] = []

    def say(self, node: FakeNode, epoch: int, *who: int) -> None:
        for number in who or range(3):
            self.sentinels[number].master, self.sentinels[number].epoch = node.node, epoch

    def fail_over(self) -> None:
        """As it ends: the old one is a replica, and every Sentinel knows."""
        self.old.role, self.new.role = "slave", "master"
        self.say(self.new, 2)

    async def find(self) -> Node:
        return await self.topology.node_of("any", asyncio.get_running_loop().time() + 20)

    @contextmanager
    def watching(self) -> Iterator[None]:
        task = asyncio.create_task(self.topology.run())
        try:
            yield
        finally:
            task.cancel()


@asynccontextmanager
async def _scene(options: str = "") -> AsyncIterator[Scene]:
    scene = Scene()
    async with running(*scene.sentinels, scene.old, scene.new):
        scene.say(scene.old, 1)
        for sentinel in scene.sentinels:
            sentinel.others = [other.node for other in scene.sentinels if other is not sentinel]
        url = parse_store_url(f"sentinel://{hosts(scene.sentinels[:2])}/main{options}")
        topology = open_topology(url)
        assert isinstance(topology, SentinelTopology)
        scene.topology = topology
        topology.on_change(lambda node, reason: scene.changes.append((node, reason)))
        try:
            yield scene
        finally:
            await topology.close()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with _scene() as scene:
        yield scene


async def test_the_master_is_asked_for_once_and_then_known(scene: Scene) -> None:
    assert await scene.find() == scene.old.node
    asked = len(scene.sentinels[0].commands)
    assert await scene.find() == scene.old.node
    assert await scene.topology.masters(asyncio.get_running_loop().time() + 20) == (scene.old.node,)
    assert len(scene.sentinels[0].commands) == asked


async def test_many_who_ask_share_one_look(scene: Scene) -> None:
    found = await asyncio.gather(*(scene.find() for _ in range(50)))
    assert set(found) == {scene.old.node}
    assert scene.old.commands == [("ROLE",)]


async def test_the_newest_epoch_counts_and_not_the_first_answer_or_the_most(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The one that knows it may be the last to answer, on a busy machine by more than the grace.
    monkeypatch.setattr(refresh, "GRACE_S", 60.0)
    monkeypatch.setattr(refresh, "ANSWER_TIMEOUT_S", 60.0)
    await scene.find()
    scene.old.role, scene.new.role = "slave", "master"
    scene.say(scene.new, 2, 2)
    scene.topology.suspect(scene.old.node, "READONLY")
    assert await scene.find() == scene.new.node
    ((node, reason),) = scene.changes
    assert node == scene.old.node
    assert str(scene.new.node) in reason


async def test_sentinels_learn_of_each_other(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (refresh, sentinel_report):
        monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 60.0)
    await scene.find()
    await scene.sentinels[0].stop()
    await scene.sentinels[1].stop()
    scene.topology.suspect(scene.old.node, "lost")
    assert await scene.find() == scene.old.node, "the third one is in no URL"


async def test_one_that_is_known_by_no_sentinel_any_more_is_asked_no_more(scene: Scene) -> None:
    await scene.find()
    scene.topology.suspect(scene.old.node, "lost")
    await scene.find()
    assert scene.sentinels[2].commands
    for sentinel in scene.sentinels[:2]:
        sentinel.others = [other for other in sentinel.others if other != scene.sentinels[2].node]
    scene.sentinels[2].others = []
    scene.topology.suspect(scene.old.node, "lost")
    await scene.find()
    await until(lambda: scene.sentinels[2].open_count == 0)
    assert len(await scene.topology.sentinel_settings(asyncio.get_running_loop().time() + 20)) == 2


async def test_one_that_hangs_does_not_block_the_others(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh, "ANSWER_TIMEOUT_S", 600.0)
    monkeypatch.setattr(sentinel_report, "ANSWER_TIMEOUT_S", 600.0)
    await scene.find()
    scene.sentinels[0].hangs = True
    scene.topology.suspect(scene.old.node, "lost")
    assert await scene.find() == scene.old.node


async def test_a_named_node_must_report_the_role_of_a_master(scene: Scene) -> None:
    scene.old.role = "slave"
    with pytest.raises(StoreUnreachable) as caught:
        await scene.find()
    assert f"{scene.old.node} is a replica now, and no master" in caught.value.message
    for sentinel in scene.sentinels[:2]:
        assert f"{sentinel.node}: {scene.old.node} since epoch 1" in caught.value.message
    scene.fail_over()
    assert await scene.find() == scene.new.node


async def test_a_master_that_hangs_is_not_handed_out(scene: Scene) -> None:
    await scene.find()
    scene.old.hangs = True
    scene.topology.suspect(scene.old.node, TimeoutError())
    with pytest.raises(StoreUnreachable, match=f"{scene.old.node}: no answer in time"):
        await scene.find()
    scene.fail_over()
    assert await scene.find() == scene.new.node
    assert [node for node, _ in scene.changes] == [scene.old.node]


async def test_sentinels_that_contradict_each_other_are_not_trusted(scene: Scene) -> None:
    await scene.sentinels[2].stop()
    scene.new.role = "master"
    scene.say(scene.new, 1, 1)
    with pytest.raises(StoreUnreachable, match="the Sentinels name different nodes"):
        await scene.find()


async def test_a_sentinel_with_two_addresses_has_one_voice(scene: Scene) -> None:
    one, other, third = scene.sentinels
    await third.stop()
    scene.new.role = "master"
    scene.say(scene.new, 1, 1)
    one.others, other.others = [Node("localhost", one.node.port)], []
    with pytest.raises(StoreUnreachable, match="the Sentinels name different nodes"):
        await scene.find()
    scene.topology.suspect(scene.old.node, "lost")
    with pytest.raises(StoreUnreachable, match="the Sentinels name different nodes"):
        await scene.find()


async def test_a_minority_that_is_behind_does_not_turn_the_clock_back(scene: Scene) -> None:
    await scene.find()
    scene.fail_over()
    scene.topology.suspect(scene.old.node, "READONLY")
    assert await scene.find() == scene.new.node
    # Cut off together with one Sentinel, the old master takes itself for one again.
    scene.old.role = "master"
    scene.say(scene.old, 1, 0)
    await scene.sentinels[1].stop()
    await scene.sentinels[2].stop()
    scene.topology.suspect(scene.new.node, "lost")
    with pytest.raises(StoreUnreachable, match="are behind: epoch 2 was seen"):
        await scene.find()


async def test_a_majority_of_sentinels_may_have_been_recreated(scene: Scene) -> None:
    await scene.find()
    scene.old.role, scene.new.role = "slave", "master"
    scene.say(scene.new, 0)
    scene.topology.suspect(scene.old.node, "READONLY")
    assert await scene.find() == scene.new.node


async def test_deposed_and_promoted_again_is_a_change_too(scene: Scene) -> None:
    await scene.find()
    scene.say(scene.old, 3)
    scene.topology.suspect(scene.old.node, "a barrier came up short")
    assert await scene.find() == scene.old.node
    assert scene.changes == [(scene.old.node, "it was deposed in between, and is master again")]


async def test_suspecting_a_master_that_is_well_changes_nothing(scene: Scene) -> None:
    await scene.find()
    scene.topology.suspect(scene.old.node, "a barrier came up short")
    assert await scene.find() == scene.old.node
    assert scene.changes == []
    asked = len(scene.sentinels[0].commands)
    scene.topology.suspect(scene.new.node, "it is none of our business")
    assert await scene.find() == scene.old.node
    assert len(scene.sentinels[0].commands) == asked


async def test_without_any_sentinel_it_is_said_what_each_one_said(scene: Scene) -> None:
    await scene.sentinels[0].stop()
    scene.sentinels[1].error = ReplyError("NOPERM no permissions to run 'sentinel|master'")
    with pytest.raises(StoreUnreachable) as caught:
        await scene.find()
    assert "no Sentinel names the master 'main'" in caught.value.message
    assert f"{scene.sentinels[0].node}: " in caught.value.message
    assert "no permissions to run" in caught.value.message
    assert "\n" not in caught.value.message


async def test_a_name_that_no_sentinel_knows_is_said(scene: Scene) -> None:
    for sentinel in scene.sentinels:
        sentinel.name = "other"
    with pytest.raises(StoreUnreachable, match="No such master with that name"):
        await scene.find()


async def test_a_deadline_ends_the_wait(scene: Scene) -> None:
    for sentinel in scene.sentinels:
        sentinel.hangs = True
    with pytest.raises(StoreUnreachable, match="deadline passed while the master was looked for"):
        await scene.topology.node_of("any", asyncio.get_running_loop().time())


async def test_closing_ends_waiting_requests_with_an_error(scene: Scene) -> None:
    for sentinel in scene.sentinels:
        sentinel.hangs = True
    waiting = asyncio.create_task(scene.find())
    await until(lambda: scene.sentinels[0].connections_count > 0)
    await scene.topology.close()
    with pytest.raises(StoreUnreachable, match="the server is stopping"):
        await waiting


async def test_no_sentinel_at_all_does_not_stop_what_works(scene: Scene) -> None:
    await scene.find()
    with scene.watching():
        await until(lambda: all(sentinel.subscribed.is_set() for sentinel in scene.sentinels))
        for sentinel in scene.sentinels:
            await sentinel.stop()
        assert await scene.find() == scene.old.node


async def test_a_switch_that_sentinel_tells_of_is_noticed_without_traffic(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentinel_module, "CHECK_INTERVAL_S", 600.0)
    await scene.find()
    with scene.watching():
        await until(lambda: all(sentinel.subscribed.is_set() for sentinel in scene.sentinels))
        scene.fail_over()
        scene.sentinels[2].publish("+switch-master", "other 127.0.0.1 1 127.0.0.1 2")
        scene.sentinels[2].publish("+switch-master", "main 127.0.0.1 1 127.0.0.1 2")
        await until(lambda: bool(scene.changes))
    assert await scene.find() == scene.new.node


async def test_replicas_and_settings_are_as_the_sentinels_have_them(scene: Scene) -> None:
    deadline_s = asyncio.get_running_loop().time() + 20
    scene.sentinels[0].replicas = {Node("r", 1): "slave", Node("r", 2): "slave,s_down"}
    scene.sentinels[1].replicas = scene.sentinels[2].replicas = scene.sentinels[0].replicas
    assert await scene.topology.replicas(scene.old.node, deadline_s) == (
        Replica(Node("r", 1), online=True, priority=100),
        Replica(Node("r", 2), online=False, priority=100),
    )
    with pytest.raises(StoreUnreachable, match="no Sentinel names"):
        await scene.topology.replicas(scene.new.node, deadline_s)
    settings = await scene.topology.sentinel_settings(deadline_s)
    assert {found.sentinel for found in settings} == {each.node for each in scene.sentinels}
    assert {(found.down_after_ms, found.failover_timeout_ms) for found in settings} == {
        (1_000, 10_000)
    }
    assert {(found.quorum, found.sentinels_count) for found in settings} == {(2, 3)}


async def test_each_address_goes_through_the_map() -> None:
    named = "map=10.9.9.9:1={old}&map=10.9.9.8:2={third}"
    inner = Scene()
    async with running(*inner.sentinels, inner.old, inner.new):
        inner.say(inner.old, 1)
        for sentinel in inner.sentinels:
            sentinel.master = Node("10.9.9.9", 1)
            sentinel.others = [Node("10.9.9.8", 2)]
        options = named.format(old=inner.old.node, third=inner.sentinels[2].node)
        url = parse_store_url(f"sentinel://{hosts(inner.sentinels[:2])}/main?{options}")
        topology = open_topology(url)
        try:
            deadline_s = asyncio.get_running_loop().time() + 20
            assert await topology.node_of("any", deadline_s) == Node("10.9.9.9", 1)
            assert inner.old.commands == [("ROLE",)]
            settings = await topology.sentinel_settings(deadline_s)
            assert {each.sentinel for each in settings} == {s.node for s in inner.sentinels}
            connection = topology.connect(Node("10.9.9.9", 1))
            assert await connection.send([("PING",)], 20.0) == [b"PONG"]
            await connection.close()
        finally:
            await topology.close()


async def test_a_connection_asks_for_the_role_each_time_it_opens(scene: Scene) -> None:
    connection = scene.topology.connect(scene.old.node)
    await connection.send([("GET", "a")], 20.0)
    await connection.send([("GET", "b")], 20.0)
    assert scene.old.commands == [("ROLE",), ("GET", "a"), ("GET", "b")]
    scene.old.role = "slave"
    scene.old.drop()
    with pytest.raises(ReplyLostError):
        await connection.send([("GET", "c")], 20.0)
    with pytest.raises(NotSentError, match="is a replica now"):
        await connection.send([("GET", "c")], 20.0)
    assert ("GET", "c") not in scene.old.commands
    scene.old.role = "master"
    await connection.close()
    await connection.send([("GET", "d")], 20.0)
    assert scene.old.commands[-2:] == [("ROLE",), ("GET", "d")]
    await connection.close()


async def test_a_master_that_hangs_does_not_hide_its_successor(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named while the old one is still being waited for, and that wait is given up."""
    monkeypatch.setattr(sentinel_module, "PROBE_TIMEOUT_S", 60.0)
    await scene.find()
    scene.old.hangs = True
    probed = scene.old.connections_count
    scene.topology.suspect(scene.old.node, TimeoutError())
    finding = asyncio.create_task(scene.find())
    await until(lambda: scene.old.connections_count > probed)
    scene.fail_over()
    assert await finding == scene.new.node
