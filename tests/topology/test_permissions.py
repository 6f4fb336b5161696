"""The permissions that OPERATIONS.md tells people to give are enough, and are needed."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chaos.clusters.process import FAST_PERIODS_MS, SentinelCluster
from ddq.config import Settings, StartupError
from ddq.v1 import delay_queue_service_pb2 as pb
from tests.support.rpc import DEADLINE_S, Producer, seconds
from tests.support.server import serving
from tests.support.store import needs_waitaof

OPERATIONS = Path(__file__).parents[2] / "docs" / "OPERATIONS.md"


def documented() -> tuple[list[str], list[str]]:
    """The users of a data node and of a Sentinel, as the page has them."""
    text = OPERATIONS.read_text()
    data, sentinel = re.findall(r"^ACL SETUSER ddq on >PASSWORD (.*)$", text, re.MULTILINE)
    return data.split(), sentinel.split()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[SentinelCluster]:
    cluster = SentinelCluster(folder=tmp_path, sentinel_periods_ms=FAST_PERIODS_MS)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()


@needs_waitaof
async def test_the_documented_permissions_are_enough_and_needed(cluster: SentinelCluster) -> None:
    data, sentinel = documented()
    for node in cluster.nodes:
        words, password = (sentinel, "seen") if node in cluster.sentinels else (data, "stored")
        await cluster.command(node, "ACL", "SETUSER", "ddq", "on", f">{password}", *words)
    url = cluster.store_url.replace("://", "://ddq:stored@")
    store: Any = SimpleNamespace(url=f"{url}?sentinel_username=ddq&sentinel_password=seen")
    settings = Settings(data_nodes=cluster.data_nodes, drain_ms=1)
    async with serving(store, settings) as server:
        producer = Producer(server.queue)
        leased = await producer.take_one("a", delay=seconds(0.1))
        request = pb.AckRequest(topic="jobs", id="a", lease_token=leased.lease_token)
        await server.queue.Ack(request, timeout=DEADLINE_S)
        await producer.dead_letter("b")
        await server.queue.Cancel(
            pb.CancelRequest(topic="jobs", id=(await producer.add("c")).result.id),
            timeout=DEADLINE_S,
        )

    for who, word in (
        (cluster.data, "role"),
        (cluster.sentinels, "sentinel|myid"),
        (cluster.sentinels, "sentinel|is-master-down-by-addr"),
    ):
        for node in who:
            await cluster.command(node, "ACL", "SETUSER", "ddq", f"-{word}")
        with pytest.raises(StartupError, match=rf"no permissions to run the '{re.escape(word)}'"):
            async with serving(store, settings):
                pass
        for node in who:
            await cluster.command(node, "ACL", "SETUSER", "ddq", f"+{word}")
