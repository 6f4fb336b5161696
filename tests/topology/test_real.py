"""Real Sentinels and a real Cluster, with faults while requests flow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import redis.exceptions

from chaos.clusters import ClusterError
from chaos.clusters import StoreNode as ClusterNode
from chaos.clusters.process import FAST_PERIODS_MS, SentinelCluster, ShardedCluster
from chaos.clusters.resp import Reply, as_pairs
from ddq.errors import StoreUnreachable
from ddq.store.barrier import ElectionAnswer
from ddq.store.connection import Connection, NotSentError, ReplyLostError
from ddq.store.keys import ShardId
from ddq.store.topology import (
    Node,
    Topology,
    is_lost_role,
    open_topology,
    parse_store_url,
)
from tests.support.forwarder import forwarding
from tests.support.store import needs_coordinated_failover

TIMEOUT_S = 2.0


class Traffic:
    """Writes to one key, one at a time, as the store's users do: with suspicion, and again.

    Attributes:
        answered: by which node each write was.
        changes: the changes that the topology reported.
        task: that writes.
    """

    def __init__(self, topology: Topology, key: str) -> None:
        self.topology = topology
        self.key = key
        self.answered: list[Node] = []
        self.changes: list[Node] = []
        self.task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._connections: dict[Node, Connection] = {}
        self._closing: set[asyncio.Task[None]] = set()
        topology.on_change(self._on_change)

    def _on_change(self, node: Node, _reason: str) -> None:
        self.changes.append(node)
        if connection := self._connections.pop(node, None):
            self._closing.add(asyncio.ensure_future(connection.close()))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._write()
            await asyncio.sleep(0.005)

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            node = await self.topology.node_of(self.key, loop.time() + TIMEOUT_S)
        except StoreUnreachable:
            return
        for asking in (False, True):
            command = [("ASKING",)] * asking + [("HINCRBY", self.key, "n", 1)]
            connection = self._connections.setdefault(node, self.topology.connect(node))
            try:
                *_, reply = await connection.send(command, TIMEOUT_S)
            except (NotSentError, ReplyLostError) as error:
                self.topology.suspect(node, error)
                return
            if redirect := self.topology.redirected(node, reply):
                node = redirect.node
                if redirect.asking:
                    continue
            elif is_lost_role(reply):
                self.topology.suspect(node, reply)
            else:
                assert isinstance(reply, int | redis.exceptions.TryAgainError), reply
                self.answered.append(node)
                self._news.set()
            return

    async def answers_from(self, master: Callable[[], Awaitable[ClusterNode]]) -> ClusterNode:
        """Waits for an answer, from now on, of the node that is master at that time.

        It is asked for each time: on a busy machine a node that was late with its answers may be
        replaced as well, and the one that was master a moment ago answers no more.
        """
        seen = len(self.answered)
        while True:
            await self._next_answer()
            try:
                node = await master()
            except ClusterError:
                continue
            if Node(node.ip, node.port) in self.answered[seen:]:
                return node

    async def _next_answer(self) -> None:
        """Waits for an answer; raises what ended the writer, if something has."""
        assert self.task is not None
        self._news.clear()
        news = asyncio.create_task(self._news.wait())
        try:
            await asyncio.wait({news, self.task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
        if self.task.done():
            raise AssertionError("the writer has ended") from self.task.exception()

    async def close(self) -> None:
        """Closes its connections."""
        for connection in self._connections.values():
            await connection.close()
        await asyncio.gather(*self._closing)


@asynccontextmanager
async def traffic(url: str, *keys: str) -> AsyncIterator[list[Traffic]]:
    """Writes to each of the keys while the topology watches."""
    topology = open_topology(parse_store_url(url))
    writers = [Traffic(topology, key) for key in keys]
    tasks = [asyncio.create_task(topology.run())]
    for writer in writers:
        writer.task = asyncio.create_task(writer.run())
        tasks.append(writer.task)
    try:
        yield writers
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            await writer.close()
        await topology.close()
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


@pytest.fixture
async def sentinels(tmp_path: Path) -> AsyncIterator[SentinelCluster]:
    cluster = SentinelCluster(folder=tmp_path, sentinel_periods_ms=FAST_PERIODS_MS)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()


@needs_coordinated_failover
async def test_the_master_of_sentinels_is_killed_and_its_successor_stopped(
    sentinels: SentinelCluster,
) -> None:
    async with traffic(sentinels.store_url, "ddq:test:{a}") as (writer,):
        first = await writer.answers_from(sentinels.master)
        await sentinels.kill(first)
        await sentinels.wait_for_master(other_than=first)
        heir = await writer.answers_from(sentinels.master)
        assert heir != first
        assert writer.changes[0] == Node(first.ip, first.port)

        epoch = await _epoch(sentinels)
        await sentinels.restart(first)
        await sentinels.wait_until_in_sync()
        second = await writer.answers_from(sentinels.master)
        # On a busy machine a node that is late with its answers is replaced too: by an election.
        if await _epoch(sentinels) == epoch:
            assert second == heir

        # Its socket stays open, and takes what is sent.
        await sentinels.pause(second)
        await sentinels.wait_for_master(other_than=second)
        third = await writer.answers_from(sentinels.master)
        assert third != second
        epoch, answered = await _epoch(sentinels), len(writer.answered)
        await sentinels.resume(second)
        await sentinels.wait_until_in_sync()
        await writer.answers_from(sentinels.master)
        # Only who is elected answers: without a further election, that is one node.
        if await _epoch(sentinels) == epoch:
            assert {*writer.answered[answered:]} == {Node(third.ip, third.port)}

        # One Sentinel that hangs and one master that is moved on purpose.
        await sentinels.pause(sentinels.sentinels[2])
        await sentinels.failover(coordinated=True)
        await writer.answers_from(sentinels.master)


async def _epoch(cluster: SentinelCluster) -> int:
    """The epoch of the newest election that a Sentinel knows of."""
    states = [as_pairs(await _state(cluster, each)) for each in cluster.sentinels]
    return max(int(state["config-epoch"]) for state in states)


async def test_sentinels_report_their_settings_and_the_replicas_they_watch(
    sentinels: SentinelCluster,
) -> None:
    topology = open_topology(parse_store_url(sentinels.store_url))
    try:
        deadline_s = asyncio.get_running_loop().time() + 20
        settings = await topology.sentinel_settings(deadline_s)
        assert {found.sentinel.host for found in settings} == {s.ip for s in sentinels.sentinels}
        assert {(found.down_after_ms, found.failover_timeout_ms) for found in settings} == {
            (1_000, 10_000)
        }
        assert {(found.quorum, found.sentinels_count) for found in settings} == {(2, 3)}
        (master,) = await topology.masters(deadline_s)
        replicas = await topology.replicas(master, deadline_s)
        assert {found.node.host for found in replicas} == {node.ip for node in sentinels.data[1:]}
        assert {(found.online, found.priority) for found in replicas} == {(True, 100)}
    finally:
        await topology.close()


async def test_a_store_behind_forwarded_ports(sentinels: SentinelCluster) -> None:
    named = [Node(node.ip, node.port) for node in sentinels.nodes]
    async with forwarding(*named) as forwarders:
        hosts = ",".join(
            str(forwarders[Node(sentinel.ip, sentinel.port)].node)
            for sentinel in sentinels.sentinels[:1]
        )
        entries = ",".join(f"{node}={forwarders[node].node}" for node in named)
        async with traffic(f"sentinel://{hosts}/mymaster?map={entries}", "ddq:test:{a}") as (
            writer,
        ):
            first = await writer.answers_from(sentinels.master)
            await sentinels.kill(first)
            await sentinels.wait_for_master(other_than=first)
            await writer.answers_from(sentinels.master)
        asked = {node for node in named if forwarders[node].connections_count}
        watchers = {Node(node.ip, node.port) for node in sentinels.sentinels}
        assert asked == watchers | {*writer.answered}, "masters and Sentinels, and no other"


async def test_users_of_a_store_with_permissions(sentinels: SentinelCluster) -> None:
    rules = ["on", ">pw", "~ddq:*", "+role", "+hincrby"]
    for node in sentinels.data:
        await sentinels.command(node, "ACL", "SETUSER", "ddq", *rules)
    watch = ["get-master-addr-by-name", "master", "sentinels", "replicas", "myid"]
    words = [f"+sentinel|{word}" for word in watch] + ["+subscribe", "+ping", "&+switch-master"]
    for sentinel in sentinels.sentinels:
        await sentinels.command(sentinel, "ACL", "SETUSER", "watch", "on", ">sw", *words)
    url = sentinels.store_url.replace("://", "://ddq:pw@")
    async with traffic(f"{url}?sentinel_username=watch&sentinel_password=sw", "ddq:test:{a}") as (
        writer,
    ):
        await writer.answers_from(sentinels.master)
    for wrong, complaint in (
        (f"{url}?sentinel_username=watch&sentinel_password=no", "invalid username-password"),
        (sentinels.store_url.replace("://", "://ddq:no@"), "invalid username-password"),
    ):
        topology = open_topology(parse_store_url(wrong))
        with pytest.raises(StoreUnreachable, match=complaint):
            await topology.node_of("any", asyncio.get_running_loop().time() + 20)
        await topology.close()


async def _kill(cluster: ShardedCluster, node: ClusterNode) -> Callable[[], Awaitable[None]]:
    await cluster.kill(node)
    return lambda: cluster.restart(node)


async def _pause(cluster: ShardedCluster, node: ClusterNode) -> Callable[[], Awaitable[None]]:
    await cluster.pause(node)
    return lambda: cluster.resume(node)


async def test_a_topic_spread_over_a_cluster_continues_through_failures(
    sharded: ShardedCluster,
) -> None:
    keys = [ShardId("orders", index).key("control") for index in range(8)]
    slots = {key: sharded.slot_of(key) for key in keys}
    owners = {key: await sharded.owner(slot) for key, slot in slots.items()}
    assert len(set(owners.values())) == 3, "the shards of the topic live on every master"
    async with traffic(sharded.store_url, *keys) as writers:

        def owner_of(writer: Traffic) -> Callable[[], Awaitable[ClusterNode]]:
            return partial(sharded.owner, slots[writer.key])

        async def answered(by: list[Traffic]) -> list[ClusterNode]:
            return await asyncio.gather(*(each.answers_from(owner_of(each)) for each in by))

        await answered(writers)
        for inject in (_kill, _pause):
            target = await sharded.owner(slots[keys[0]])
            others = [each for each in writers if await owner_of(each)() != target]
            undo = await inject(sharded, target)
            # The other shards of the topic do not wait for the heir.
            await answered(others)
            await sharded.wait_for_master(other_than=target)
            assert target not in await answered(writers)
            await undo()
            await sharded.wait_until_in_sync()
            await answered(writers)
            assert all(Node(target.ip, target.port) in writer.changes for writer in writers)

        writer = writers[0]
        present = await sharded.owner(slots[writer.key])
        target = next(node for node in await answered(writers) if node != present)
        await sharded.migrate_slot(slots[writer.key], target)
        await writer.answers_from(owner_of(writer))
        assert Node(target.ip, target.port) in writer.answered
    written = [
        await sharded.command(await sharded.owner(slots[key]), "HGET", key, "n") for key in keys
    ]
    assert all(int(str(n)) > 0 for n in written), "each write found its key"


async def test_an_election_is_seen_in_the_votes_until_every_sentinel_says_it_is_over(
    sentinels: SentinelCluster,
) -> None:
    """Two Sentinels vote in a new epoch, as for a leader, and the third one hangs: it may lead."""
    topology = open_topology(parse_store_url(sentinels.store_url))
    master = sentinels.data[0]
    node = Node(master.ip, master.port)
    first, second, third = sentinels.sentinels

    async def ask() -> ElectionAnswer:
        return await topology.elections(node, asyncio.get_running_loop().time() + 20)

    async def until(wanted: Callable[[ElectionAnswer], bool]) -> ElectionAnswer:
        """On a busy machine the others may be late with their answers as well."""
        async with asyncio.timeout(60):
            while not wanted(answer := await ask()):
                pass
        return answer

    def over(answer: ElectionAnswer) -> bool:
        return not answer.pending and answer.complete

    try:
        await topology.masters(asyncio.get_running_loop().time() + 20)
        await until(over)
        await sentinels.pause(third)
        epoch = 1 + int(as_pairs(await _state(sentinels, first))["config-epoch"])
        for sentinel in (first, second):
            question = ("SENTINEL", "IS-MASTER-DOWN-BY-ADDR", node.host, str(node.port))
            await sentinels.command(sentinel, *question, str(epoch), "f" * 40)
        found = await until(lambda answer: f"voted in epoch {epoch}" in answer.pending)
        assert not found.complete
        await sentinels.resume(third)
        await until(over)
        await sentinels.pause(third)
        found = await until(lambda answer: not answer.pending and not answer.complete)
        assert str(Node(third.ip, third.port)) in found.missing
    finally:
        await sentinels.resume(third)
        await topology.close()


async def _state(cluster: SentinelCluster, sentinel: ClusterNode) -> Reply:
    return await cluster.command(sentinel, "SENTINEL", "MASTER", "mymaster")
