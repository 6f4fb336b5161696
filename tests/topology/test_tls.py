"""TLS and passwords, to the nodes and apart from them to the Sentinels."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ddq.errors import StoreUnreachable
from ddq.store.connection import NotSentError
from ddq.store.topology import (
    Node,
    cluster_report,
    open_topology,
    parse_store_url,
    refresh,
    sentinel_report,
)
from ddq.store.topology import cluster as cluster_module
from ddq.store.topology import master as master_module
from ddq.store.topology import sentinel as sentinel_module
from tests.support.fake_redis import FakeClusterNode, FakeMap, FakeNode, FakeSentinel, running

FILES = Path(__file__).parent.parent / "support" / "tls"
CA = f"ca_file={FILES}/ca.pem"
CLIENT = f"cert_file={FILES}/client.pem&key_file={FILES}/client.key"


@pytest.fixture(autouse=True)
def long_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing hangs in here, and handshakes take their time on a busy machine."""
    for module in (refresh, sentinel_report, cluster_report):
        monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 60.0)
    for module in (sentinel_module, cluster_module):
        monkeypatch.setattr(module, "PROBE_TIMEOUT_S", 60.0)
    monkeypatch.setattr(master_module, "OPEN_TIMEOUT_S", 60.0)


def server_context(*, asks_for_a_certificate: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(FILES / "server.pem", FILES / "server.key")
    if asks_for_a_certificate:
        context.load_verify_locations(FILES / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@asynccontextmanager
async def deployment(
    tls: ssl.SSLContext | None, sentinel_tls: ssl.SSLContext | None
) -> AsyncIterator[tuple[FakeSentinel, FakeNode]]:
    sentinel, node = FakeSentinel(), FakeNode()
    sentinel.tls, node.tls = sentinel_tls, tls
    async with running(sentinel, node):
        sentinel.master = node.node
        yield sentinel, node


async def reach(url: str) -> Node:
    topology = open_topology(parse_store_url(url))
    try:
        node = await topology.node_of("any", asyncio.get_running_loop().time() + 20)
        connection = topology.connect(node)
        try:
            await connection.send([("PING",)], 20.0)
        finally:
            await connection.close()
        return node
    finally:
        await topology.close()


@pytest.mark.parametrize(
    ("node_tls", "sentinel_tls", "scheme", "options"),
    [
        (True, True, "sentinels", CA),
        (True, False, "sentinels", f"{CA}&sentinel_tls=false"),
        (False, True, "sentinel", f"{CA}&sentinel_tls=true"),
    ],
)
async def test_nodes_and_sentinels_each_with_or_without(
    node_tls: bool, sentinel_tls: bool, scheme: str, options: str
) -> None:
    tls = server_context()
    async with deployment(tls if node_tls else None, tls if sentinel_tls else None) as (
        sentinel,
        node,
    ):
        assert await reach(f"{scheme}://{sentinel.node}/main?{options}") == node.node


async def test_a_cluster_and_a_single_node() -> None:
    node = FakeClusterNode(FakeMap())
    node.tls = server_context()
    async with running(node):
        node.map.ranges = [(0, 16_383, node.node, ())]
        assert await reach(f"clusters://{node.node}?{CA}") == node.node
        assert await reach(f"rediss://{node.node}?{CA}") == node.node


async def test_a_peer_without_a_trusted_certificate_gets_no_request() -> None:
    async with deployment(server_context(), server_context()) as (sentinel, node):
        with pytest.raises(StoreUnreachable, match="certificate verify failed"):
            await reach(f"sentinels://{sentinel.node}/main")
        with pytest.raises(NotSentError, match="certificate verify failed"):
            await reach(f"rediss://{node.node}")
        assert not node.commands


async def test_the_certificate_must_match_the_name_unless_check_hostname_is_off() -> None:
    async with deployment(server_context(), None) as (_, node):
        # The certificate is for 127.0.0.1 and localhost, and not for this form of the address.
        other = node.node.port
        assert await reach(f"rediss://localhost:{other}?{CA}") == Node("localhost", other)
        with pytest.raises(NotSentError, match=r"IP address mismatch|Hostname mismatch"):
            await reach(f"rediss://[::ffff:127.0.0.1]:{other}?{CA}")
        await reach(f"rediss://[::ffff:127.0.0.1]:{other}?{CA}&check_hostname=false")


async def test_a_client_proves_who_it_is() -> None:
    strict = server_context(asks_for_a_certificate=True)
    async with deployment(strict, strict) as (sentinel, node):
        with pytest.raises((StoreUnreachable, NotSentError)):
            await reach(f"sentinels://{sentinel.node}/main?{CA}")
        url = f"sentinels://{sentinel.node}/main?{CA}&{CLIENT}"
        assert await reach(url) == node.node


async def test_sentinels_and_nodes_each_get_their_own_password() -> None:
    async with deployment(None, None) as (sentinel, node):
        url = f"sentinel://me:one@{sentinel.node}/main?sentinel_username=s&sentinel_password=two"
        await reach(url)
        assert node.commands[0] == ("AUTH", "me", "one")
        assert sentinel.commands[0] == ("AUTH", "s", "two")
        sentinel.commands.clear()
        await reach(f"sentinel://:one@{sentinel.node}/main")
        assert ("AUTH", "one") in node.commands
        assert all(command[0] != "AUTH" for command in sentinel.commands)
