"""A server without WAITAOF, as Redis before 7.2: fsync is refused at the start, with the remedy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.exceptions

from ddq.config import Settings
from ddq.store.barrier import DataNodes
from ddq.store.barrier_sender import DemotedError, _read_barrier
from ddq.store.checks import examine
from ddq.store.topology import open_topology, parse_store_url
from tests.support.fake_redis import FakeNode, ReplyError, running

CONFIG = [
    "appendonly", "yes", "appendfsync", "always", "maxmemory-policy", "noeviction",
    "min-replicas-to-write", "0", "min-replicas-max-lag", "2", "repl-diskless-sync-delay", "0",
    "replica-priority", "100",
]  # fmt: skip


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    made = FakeNode()
    made.replies["CONFIG"] = CONFIG
    made.replies["INFO"] = "# Server\r\nredis_version:7.0.15\r\n"
    async with running(made):
        yield made


async def findings(node: FakeNode, *, fsync: bool) -> list[str]:
    topology = open_topology(parse_store_url(f"redis://{node.node}"))
    try:
        settings = Settings(fsync=fsync)
        deadline_s = asyncio.get_running_loop().time() + 20
        examined = await examine(topology, DataNodes.parse(""), settings, deadline_s)
    finally:
        await topology.close()
    return [str(each) for each in examined.findings if "WAITAOF" in str(each)]


async def test_fsync_is_refused_with_the_version_that_can(node: FakeNode) -> None:
    node.replies["WAITAOF"] = ReplyError("ERR unknown command 'WAITAOF'")
    (found,) = await findings(node, fsync=True)
    assert "7.0.15" in found
    assert "Redis 7.2, Valkey 7.2 or newer" in found
    assert await findings(node, fsync=False) == []


async def test_a_server_that_has_it_is_not_reported(node: FakeNode) -> None:
    node.replies["WAITAOF"] = [0, 0]
    assert await findings(node, fsync=True) == []


def test_a_topic_with_fsync_on_such_a_server_is_reported_by_its_reason() -> None:
    replies = [redis.exceptions.ResponseError("unknown command 'WAITAOF'"), [b"master", 1, []]]
    with pytest.raises(DemotedError, match="does not have WAITAOF"):
        _read_barrier(replies, [], 0.0, 0.0, fsync=True)
