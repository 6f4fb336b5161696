"""http_proxy: never for this machine, and named where it stands between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ddq import errors
from ddq.client import Client
from ddq.client.proxy import Proxy, is_loopback, proxy_of
from tests.client.fake import FakeServer


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:50051", True),
        ("127.8.0.1:1", True),
        ("localhost:50051", True),
        ("api.localhost:50051", True),
        ("[::1]:50051", True),
        ("ipv6:[::1]:50051", True),
        ("ipv4:127.0.0.1:50051", True),
        ("dns:///localhost:50051", True),
        ("dns://8.8.8.8/localhost:50051", True),
        ("unix:/tmp/socket", True),
        ("unix:///tmp/socket", True),
        ("10.0.0.1:50051", False),
        ("localhost.example.org:50051", False),
        ("dns:///ddq.example.org:50051", False),
        ("[2001:db8::1]:50051", False),
    ],
)
def test_loopback_addresses_are_recognized(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


NAMED = {"http_proxy": "http://user:secret@proxy:3128"}


@pytest.mark.parametrize(
    ("address", "environment", "variable"),
    [
        ("ddq.example.org:1", {}, None),
        ("ddq.example.org:1", {"http_proxy": ""}, None),
        ("ddq.example.org:1", NAMED, "http_proxy"),
        ("ddq.example.org:1", NAMED | {"grpc_proxy": "http://other:1"}, "grpc_proxy"),
        ("ddq.example.org:1", NAMED | {"no_proxy": "a.org, example.org"}, None),
        ("ddq.example.org:1", NAMED | {"no_proxy": "a.org"}, "http_proxy"),
        ("10.1.2.3:1", NAMED | {"no_proxy": "10.0.0.0/8"}, None),
        ("10.1.2.3:1", NAMED | {"no_proxy": "nonsense/8"}, "http_proxy"),
        ("127.0.0.1:1", NAMED, None),
    ],
)
def test_which_variable_counts(
    address: str, environment: dict[str, str], variable: str | None
) -> None:
    found = proxy_of(address, environment)
    assert (found.variable if found else None) == variable


def test_a_password_is_not_shown() -> None:
    assert proxy_of("ddq:1", NAMED) == Proxy("http_proxy", "http://proxy:3128", "no_proxy")


@asynccontextmanager
async def refusing_proxy() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A proxy that refuses, and an event that is set when it is asked."""
    asked = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        asked.set()
        writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}", asked


async def test_loopback_uses_no_proxy(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with refusing_proxy() as (url, asked):
        monkeypatch.setenv("http_proxy", url)
        async with Client(server.address, timeout_s=20) as client:
            await client.connect()
        assert not asked.is_set()


async def test_elsewhere_the_message_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    async with refusing_proxy() as (url, asked):
        monkeypatch.setenv("http_proxy", url)
        # An address that is for documentation: nothing answers there.
        async with Client("192.0.2.1:50051", timeout_s=20) as client:
            with pytest.raises(errors.NotConnected) as caught:
                await client.connect()
        assert asked.is_set()
    assert f"through the proxy {url}" in str(caught.value)
    assert "http_proxy" in str(caught.value)
    assert "no_proxy" in str(caught.value)
