"""TLS towards a real server and a real Sentinel, with passwords and client certificates.

The wheel's server is built without TLS, so these tests run where another one has it: the one of
`make test-store`, or redis-server or valkey-server on the PATH.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from chaos.eventually import eventually
from ddq.client import Client
from ddq.config import Settings, StartupError
from ddq.server import ServerOptions, run_server
from tests.support.certificates import authority, other_authority, server_pair
from tests.support.server import serving

PASSWORD = "hunter2-of-the-store"
SETTINGS = Settings(drain_ms=1, store_checks=False)


@functools.cache
def tls_server() -> str | None:
    """A server that was built with TLS."""
    named = os.environ.get("STORE_SERVER")
    for path in [named] if named else map(shutil.which, ("redis-server", "valkey-server")):
        if path is not None:
            # It listens nowhere, and says so, or does not know the directive.
            tried = subprocess.run(
                [path, "--port", "0", "--tls-port", "0", "--tls-cluster", "no"],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            if "Bad directive" not in tried.stdout + tried.stderr:
                return path
    return None


pytestmark = pytest.mark.skipif(
    tls_server() is None, reason="no redis-server or valkey-server with TLS is on the PATH"
)


@dataclass(frozen=True)
class Peer:
    """A server that takes TLS only, and clients with a certificate of the authority.

    Attributes:
        options: of a URL, with everything that is needed.
    """

    port: int
    folder: Path
    options: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def running(folder: Path, *more: str, port: int) -> AsyncIterator[None]:
    """A process of the server, until the block ends."""
    cert, key = server_pair().write(folder, "server")
    program = tls_server()
    assert program is not None
    process = await asyncio.create_subprocess_exec(
        program, *more,
        "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--dir", str(folder),
        "--tls-cert-file", str(cert), "--tls-key-file", str(key),
        "--tls-ca-cert-file", str(authority().write(folder)), "--tls-auth-clients", "yes",
        "--tls-replication", "yes",
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:

        async def accepts() -> bool:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True

        await eventually(accepts, 60, ignoring=(OSError,))
        yield
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[Peer]:
    port = free_port()
    cert, key = authority().issue("ddq").write(tmp_path, "client")
    options = f"ca_file={tmp_path}/ca.pem&cert_file={cert}&key_file={key}"
    more = ("--requirepass", PASSWORD, "--save", "", "--appendonly", "yes")
    async with running(tmp_path, *more, port=port):
        yield Peer(port, tmp_path, options)


async def delivers(url: str) -> None:
    """A server on that store delivers a task to a worker that already waits."""
    store = cast("Any", SimpleNamespace(url=url))
    async with (
        serving(store, SETTINGS) as server,
        Client(server.address) as client,
    ):
        await client.create_topic("mail")
        waits = asyncio.create_task(client.retrieve("mail", wait=timedelta(seconds=50)))
        await client.enqueue("mail", b"hello", delay=timedelta(milliseconds=20))
        (lease,) = await waits
        assert lease.task.payload == b"hello"
        await client.ack(lease)


async def refused(url: str, *, at_once: bool = True) -> str:
    """The error of a server on that store.

    Args:
        at_once: whether it does not wait for the store first, as where that may yet come.
    """

    def ready(_info: object) -> None:
        raise AssertionError("it has started")

    settings = SETTINGS if at_once else replace(SETTINGS, store_wait_ms=1)
    options = ServerOptions("127.0.0.1:0", url, settings=settings)
    with pytest.raises(StartupError) as caught:
        await run_server(options, stop=asyncio.Event(), on_ready=ready)
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


async def test_a_server_works_on_a_store_with_tls(peer: Peer) -> None:
    await delivers(f"rediss://:{PASSWORD}@127.0.0.1:{peer.port}/0?{peer.options}")


async def test_a_store_that_cannot_be_trusted_or_does_not_trust_is_refused(peer: Peer) -> None:
    place = f"127.0.0.1:{peer.port}/0"
    other = other_authority().write(peer.folder, "other")
    stranger, key = other_authority().issue("ddq").write(peer.folder, "stranger")
    trusting = f"ca_file={peer.folder}/ca.pem"
    for url, words in (
        (f"rediss://:{PASSWORD}@{place}", "certificate verify failed"),
        (f"rediss://:{PASSWORD}@{place}?ca_file={other}", "certificate verify failed"),
        (f"rediss://:{PASSWORD}@{place}?{trusting}", ""),
        (f"rediss://:{PASSWORD}@{place}?{trusting}&cert_file={stranger}&key_file={key}", ""),
        (f"rediss://:wrong@{place}?{peer.options}", "password"),
        (f"redis://:{PASSWORD}@{place}", ""),
    ):
        assert words in await refused(url, at_once=bool(words)), url


async def test_a_certificate_of_another_name_is_refused_unless_names_are_not_checked(
    peer: Peer,
) -> None:
    url = f"rediss://:{PASSWORD}@[::ffff:127.0.0.1]:{peer.port}/0?{peer.options}"
    assert "mismatch" in await refused(url)
    await delivers(f"{url}&check_hostname=false")


async def test_a_sentinel_with_tls_leads_to_a_master_with_tls(peer: Peer) -> None:
    folder = peer.folder / "sentinel"
    folder.mkdir()
    port = free_port()
    config = folder / "sentinel.conf"
    config.write_text(
        f"sentinel monitor main 127.0.0.1 {peer.port} 1\nsentinel auth-pass main {PASSWORD}\n"
    )
    async with running(folder, str(config), "--sentinel", port=port):
        url = f"sentinels://:{PASSWORD}@127.0.0.1:{port}/main?{peer.options}"
        await delivers(url)
