"""A Cluster whose slots move and whose nodes die: each key's master is found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from unittest import mock

import pytest
import redis.exceptions
from redis.crc import key_slot

from ddq.errors import StoreUnreachable
from ddq.store.connection import NotSentError
from ddq.store.keys import TOPICS, ShardId
from ddq.store.topology import (
    ClusterTopology,
    Node,
    Redirect,
    Replica,
    cluster,
    open_topology,
    parse_store_url,
    refresh,
)
from tests.support.fake_redis import FakeClusterNode, FakeMap, ReplyError, hosts, running, until

HALF = 8_192
LOW = "ddq:control:{blue}"
HIGH = "ddq:control:{red}"


def test_the_keys_of_these_tests_are_where_they_should_be() -> None:
    assert key_slot(LOW.encode()) < HALF <= key_slot(HIGH.encode())


class Scene:
    """Two masters with half of the slots each, and a replica of the first."""

    def __init__(self) -> None:
        self.map = FakeMap()
        self.low = FakeClusterNode(self.map)
        self.high = FakeClusterNode(self.map)
        self.replica = FakeClusterNode(self.map, "slave")
        self.nodes = (self.low, self.high, self.replica)
        self.topology: ClusterTopology
        self.changes: list[tuple[Node, str]] = []

    def share(self, low: FakeClusterNode, high: FakeClusterNode, border: int = HALF) -> None:
        replicas = (self.replica.node,) if low is self.low else ()
        self.map.ranges = [(0, border - 1, low.node, replicas), (border, 16_383, high.node, ())]

    def fail_over(self) -> None:
        """The replica has taken the low half, and all nodes know."""
        self.low.role, self.replica.role = "slave", "master"
        self.share(self.replica, self.high)
        self.map.epoch = self.map.epochs[self.replica.node] = 2

    async def find(self, key: str) -> Node:
        return await self.topology.node_of(key, asyncio.get_running_loop().time() + 20)

    def asked(self) -> int:
        return sum(node.commands.count(("CLUSTER", "SLOTS")) for node in self.nodes)

    def open(self, url: str) -> None:
        topology = open_topology(parse_store_url(url))
        assert isinstance(topology, ClusterTopology)
        self.topology = topology
        topology.on_change(lambda node, reason: self.changes.append((node, reason)))


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    async with running(*scene.nodes):
        scene.share(scene.low, scene.high)
        scene.open(f"cluster://{hosts(scene.nodes[:2])}")
        try:
            yield scene
        finally:
            await scene.topology.close()


async def look_again(scene: Scene, key: str) -> None:
    """Asks the Cluster again."""
    scene.topology.suspect(await scene.find(key), "a barrier came up short")
    await scene.find(key)


async def test_each_key_has_its_master_and_is_asked_for_once(scene: Scene) -> None:
    assert await scene.find(LOW) == scene.low.node
    asked = scene.asked()
    assert await scene.find(HIGH) == scene.high.node
    masters = await scene.topology.masters(asyncio.get_running_loop().time() + 20)
    assert set(masters) == {scene.low.node, scene.high.node}
    assert scene.asked() == asked


async def test_all_keys_of_a_shard_have_one_master(scene: Scene) -> None:
    for index in range(8):
        found = {await scene.find(key) for key in ShardId("a-topic", index).keys}
        assert len(found) == 1
    assert await scene.find(TOPICS) in {scene.low.node, scene.high.node}


async def test_a_slot_that_moved_is_known_from_the_redirect_on(scene: Scene) -> None:
    await scene.find(LOW)
    asked = scene.asked()
    moved = redis.exceptions.MovedError(f"{key_slot(LOW.encode())} {scene.high.node}")
    assert scene.topology.redirected(scene.low.node, moved) == Redirect(scene.high.node, False)
    assert await scene.find(LOW) == scene.high.node
    assert await scene.find("ddq:control:{two}") == scene.low.node, "the others did not move"
    assert scene.asked() == asked
    assert scene.changes == []


async def test_a_slot_on_the_move_is_asked_for_elsewhere_this_once(scene: Scene) -> None:
    await scene.find(LOW)
    ask = redis.exceptions.AskError(f"{key_slot(LOW.encode())} {scene.high.node}")
    assert scene.topology.redirected(scene.low.node, ask) == Redirect(scene.high.node, True)
    assert await scene.find(LOW) == scene.low.node


async def test_other_replies_are_no_redirects(scene: Scene) -> None:
    for reply in (b"OK", 1, None, [b"OK"], redis.exceptions.TryAgainError("in migration")):
        assert scene.topology.redirected(scene.low.node, reply) is None


async def test_a_redirect_without_a_host_means_the_one_that_was_asked(scene: Scene) -> None:
    moved = redis.exceptions.MovedError("1 :7001")
    assert scene.topology.redirected(Node("here", 7000), moved) == Redirect(
        Node("here", 7001), False
    )


async def test_a_failover_is_noticed_and_reported(scene: Scene) -> None:
    await scene.find(LOW)
    scene.fail_over()
    scene.topology.suspect(scene.low.node, "READONLY")
    assert await scene.find(LOW) == scene.replica.node
    assert scene.changes == [(scene.low.node, "the Cluster names it no master")]


async def test_the_rest_works_on_while_one_master_is_away(scene: Scene) -> None:
    await scene.find(LOW)
    await scene.low.stop()
    scene.topology.suspect(scene.low.node, "lost")
    asked = scene.asked()
    assert await scene.find(HIGH) == scene.high.node
    assert scene.asked() == asked, "it does not wait for a look"
    with pytest.raises(StoreUnreachable, match=f"is away: {scene.low.node}: "):
        await scene.find(LOW)
    assert await scene.find(HIGH) == scene.high.node
    scene.fail_over()
    assert await scene.find(LOW) == scene.replica.node


async def test_a_master_that_hangs_is_not_handed_out(scene: Scene) -> None:
    await scene.find(LOW)
    scene.low.hangs = True
    scene.topology.suspect(scene.low.node, TimeoutError())
    with pytest.raises(StoreUnreachable, match="no answer in time"):
        await scene.find(LOW)
    scene.low.hangs = False
    assert await scene.find(LOW) == scene.low.node
    assert scene.changes == []


async def test_a_suspicion_during_a_look_outlasts_it_though_its_reason_is_the_same(
    scene: Scene,
) -> None:
    """The look may have asked the node before that happened."""
    await scene.find(LOW)
    topology, node = scene.topology, scene.low.node
    topology.suspect(node, "lost")
    ask_nodes = topology._ask_nodes

    async def ask_and_suspect() -> None:
        await ask_nodes()
        topology.suspect(node, "lost")

    with (
        mock.patch.object(topology, "_ask_nodes", ask_and_suspect),
        pytest.raises(StoreUnreachable),
    ):
        await scene.find(LOW)
    assert await scene.find(LOW) == node


async def test_a_node_that_is_cut_off_is_not_trusted(scene: Scene) -> None:
    await scene.find(LOW)
    scene.low.map = FakeMap(list(scene.map.ranges), epoch=1, state="ok")
    scene.fail_over()
    scene.topology.suspect(scene.low.node, "lost")
    assert await scene.find(LOW) == scene.replica.node


async def test_nodes_that_are_behind_do_not_turn_the_clock_back(scene: Scene) -> None:
    await scene.find(LOW)
    behind = FakeMap(list(scene.map.ranges), epoch=1, state="fail")
    scene.fail_over()
    scene.topology.suspect(scene.low.node, "lost")
    await scene.find(LOW)
    scene.low.map = behind
    await scene.high.stop()
    await scene.replica.stop()
    scene.topology.suspect(scene.replica.node, "lost")
    with pytest.raises(StoreUnreachable, match="are behind: epoch 2 was seen"):
        await scene.find(LOW)


async def test_deposed_and_promoted_again_is_a_change_too(scene: Scene) -> None:
    await scene.find(LOW)
    scene.map.epoch = scene.map.epochs[scene.low.node] = 3
    scene.topology.suspect(scene.low.node, "a barrier came up short")
    assert await scene.find(LOW) == scene.low.node
    assert scene.changes == [(scene.low.node, "it was deposed in between, and is master again")]


async def test_a_slot_that_moves_to_a_master_does_not_look_like_a_failover(scene: Scene) -> None:
    await scene.find(LOW)
    scene.share(scene.low, scene.high, HALF + 100)
    scene.map.epoch = scene.map.epochs[scene.low.node] = 3
    scene.topology.suspect(scene.low.node, "a barrier came up short")
    await scene.find(LOW)
    assert scene.changes == []


async def test_a_slot_move_that_a_redirect_reported_first_is_not_a_failover(scene: Scene) -> None:
    await scene.find(LOW)
    moved = redis.exceptions.MovedError(f"{key_slot(LOW.encode())} {scene.high.node}")
    scene.topology.redirected(scene.low.node, moved)
    # Where the look then finds it, as the redirect said.
    slot = key_slot(LOW.encode())
    scene.map.ranges = [
        (0, slot - 1, scene.low.node, (scene.replica.node,)),
        (slot, slot, scene.high.node, ()),
        (slot + 1, HALF - 1, scene.low.node, (scene.replica.node,)),
        (HALF, 16_383, scene.high.node, ()),
    ]
    scene.map.epoch = scene.map.epochs[scene.high.node] = 5
    await look_again(scene, HIGH)
    assert scene.changes == []
    # Only that once: what came without a redirect is a failover.
    scene.map.epoch = scene.map.epochs[scene.high.node] = 7
    await look_again(scene, HIGH)
    assert scene.changes == [(scene.high.node, "it was deposed in between, and is master again")]


async def test_a_redirect_from_a_demoted_node_reports_a_failover(scene: Scene) -> None:
    await scene.find(LOW)
    moved = redis.exceptions.MovedError(f"{key_slot(HIGH.encode())} {scene.high.node}")
    scene.topology.redirected(scene.replica.node, moved)
    scene.map.epoch = scene.map.epochs[scene.high.node] = 5
    await look_again(scene, HIGH)
    assert scene.changes == [(scene.high.node, "it was deposed in between, and is master again")]


async def test_a_slot_without_a_master_is_reported(scene: Scene) -> None:
    scene.map.ranges.pop()
    scene.map.state = "fail"
    with pytest.raises(StoreUnreachable) as caught:
        await scene.find(HIGH)
    assert f"serves slot {key_slot(HIGH.encode())}" in caught.value.message
    assert f"{scene.low.node}: cluster_state fail, {HALF} slots served" in caught.value.message


async def test_without_any_node_it_is_said_what_each_one_said(scene: Scene) -> None:
    await scene.low.stop()
    scene.high.map = FakeMap(epoch="?")  # type: ignore[arg-type]
    with pytest.raises(StoreUnreachable) as caught:
        await scene.find(LOW)
    assert "no node of the Cluster answers" in caught.value.message
    assert f"{scene.low.node}: Error" in caught.value.message
    assert f"{scene.high.node}: its answer cannot be read" in caught.value.message
    assert "\n" not in caught.value.message


async def test_a_server_that_is_no_cluster_is_said(scene: Scene) -> None:
    for node in scene.nodes:
        node.error = ReplyError("ERR This instance has cluster support disabled")
    with pytest.raises(StoreUnreachable, match="has cluster support disabled"):
        await scene.find(LOW)


async def test_replicas_are_those_that_the_master_names(scene: Scene) -> None:
    scene.low.replicas = [scene.replica.node]
    deadline_s = asyncio.get_running_loop().time() + 20
    assert await scene.topology.replicas(scene.low.node, deadline_s) == (
        Replica(scene.replica.node, online=True),
    )
    with pytest.raises(StoreUnreachable, match="is a replica now"):
        await scene.topology.replicas(scene.replica.node, deadline_s)
    assert await scene.topology.sentinel_settings(deadline_s) == ()


async def test_a_connection_is_to_masters_only(scene: Scene) -> None:
    connection = scene.topology.connect(scene.replica.node)
    with pytest.raises(NotSentError, match=f"{scene.replica.node} is a replica now"):
        await connection.send([("GET", "a")], 20.0)
    await connection.close()


async def test_hints_are_subscribed_at_another_master_each_time(scene: Scene) -> None:
    deadline_s = asyncio.get_running_loop().time() + 20
    await scene.find(LOW)
    ports = {
        (await scene.topology.subscriber(deadline_s)).port  # type: ignore[attr-defined]
        for _ in range(2)
    }
    assert ports == {scene.low.node.port, scene.high.node.port}
    scene.topology.suspect(scene.low.node, "lost")
    for _ in range(2):
        connection = await scene.topology.subscriber(deadline_s)
        assert connection.port == scene.high.node.port  # type: ignore[attr-defined]


async def test_a_failover_is_noticed_without_traffic(scene: Scene) -> None:
    await scene.find(LOW)
    scene.fail_over()
    watching = asyncio.create_task(scene.topology.run())
    try:
        await until(lambda: bool(scene.changes))
    finally:
        watching.cancel()
    assert await scene.find(LOW) == scene.replica.node


async def test_each_address_goes_through_the_map() -> None:
    scene = Scene()
    async with running(*scene.nodes):
        inner = Node("10.9.9.9", 1)
        scene.map.ranges = [(0, 16_383, inner, ())]
        scene.open(f"cluster://{scene.high.node}?map={inner}={scene.low.node}")
        try:
            assert await scene.find(LOW) == inner
            connection = scene.topology.connect(inner)
            assert await connection.send([("PING",)], 20.0) == [b"PONG"]
            assert scene.low.commands == [("ROLE",), ("PING",)]
            await connection.close()
        finally:
            await scene.topology.close()


async def test_a_master_that_hangs_does_not_hide_its_successor(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named while the old one is still being waited for, and that wait is given up."""
    monkeypatch.setattr(cluster, "PROBE_TIMEOUT_S", 60.0)
    monkeypatch.setattr(refresh, "ANSWER_TIMEOUT_S", 60.0)
    await scene.find(LOW)
    scene.low.hangs = True
    probed = scene.low.connections_count
    scene.topology.suspect(scene.low.node, TimeoutError())
    finding = asyncio.create_task(scene.find(LOW))
    # Asked for the map, and for its role.
    await until(lambda: scene.low.connections_count >= probed + 2)
    scene.fail_over()
    assert await finding == scene.replica.node
