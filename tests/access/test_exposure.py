"""Where other machines reach a process it is refused without protection, unless a flag says so."""

from __future__ import annotations

import asyncio
import http.client
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from ddq.access import check_exposure
from ddq.access.exposure import is_loopback
from ddq.config import Settings, StartupError
from ddq.scheduler.process import SchedulerOptions, run_scheduler
from ddq.server import ServerOptions, run_server
from tests.support.access import AccessFile
from tests.support.certificates import authority, server_pair
from tests.support.server import scheduling, serving
from tests.support.store import StoreServer

TLS = Settings(tls_server_cert="cert.pem")
TOKENS = Settings(access_file="access.json")
BOTH = replace(TLS, access_file="access.json")
EVERYWHERE = "0.0.0.0:50051"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.4.5.6", True),
        ("localhost", True),
        ("[::1]", True),
        ("0.0.0.0", False),  # noqa: S104 - what is refused
        ("[::]", False),
        ("10.0.0.1", False),
        ("queue.example.org", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
    ],
)
def test_an_address_is_loopback_or_it_is_not(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("settings", "listen", "metrics_listen", "words"),
    [
        (Settings(), EVERYWHERE, None, "without TLS and tokens"),
        (TLS, EVERYWHERE, None, "without tokens"),
        (TOKENS, EVERYWHERE, None, "without TLS"),
        (BOTH, EVERYWHERE, None, None),
        (replace(TLS, tls_client_ca="ca.pem"), EVERYWHERE, None, None),
        (Settings(insecure=True), EVERYWHERE, EVERYWHERE, None),
        (Settings(), "127.0.0.1:1", "127.0.0.1:2", None),
        (Settings(), "[::]:1", None, "without TLS and tokens"),
        (Settings(), None, EVERYWHERE, "metrics on .* without TLS and tokens"),
        (BOTH, EVERYWHERE, EVERYWHERE, None),
        (replace(TLS, tls_client_ca="ca.pem"), None, EVERYWHERE, "metrics on .* without tokens"),
        (Settings(metrics_insecure=True), None, EVERYWHERE, None),
        (Settings(metrics_insecure=True), EVERYWHERE, None, "without TLS and tokens"),
    ],
)
def test_a_port_that_other_machines_reach_has_tls_and_tokens(
    settings: Settings, listen: str | None, metrics_listen: str | None, words: str | None
) -> None:
    if words is None:
        check_exposure(settings, listen=listen, metrics_listen=metrics_listen)
        return
    with pytest.raises(StartupError, match=words) as refused:
        check_exposure(settings, listen=listen, metrics_listen=metrics_listen)
    assert "insecure if" in str(refused.value)


async def test_a_server_and_a_scheduler_refuse_to_start(store_server: StoreServer) -> None:
    def ready(_info: object) -> None:
        raise AssertionError("it has started")

    server = ServerOptions(EVERYWHERE, store_server.url)
    with pytest.raises(StartupError, match=r"refusing to listen on 0\.0\.0\.0:50051"):
        await run_server(server, stop=asyncio.Event(), on_ready=ready)
    scheduler = SchedulerOptions(store_server.url, metrics_listen=EVERYWHERE)
    with pytest.raises(StartupError, match="refusing to show metrics"):
        await run_scheduler(scheduler, stop=asyncio.Event(), on_ready=ready)


# The metrics port


def ask(address: str, path: str, token: str | None, context: ssl.SSLContext | None) -> int:
    host, _, port = address.rpartition(":")
    connection = (
        http.client.HTTPConnection(host, int(port), timeout=20)
        if context is None
        else http.client.HTTPSConnection(host, int(port), timeout=20, context=context)
    )
    try:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection.request("GET", path, headers=headers)
        reply = connection.getresponse()
        reply.read()
        return reply.status
    finally:
        connection.close()


@pytest.mark.parametrize("kind", ["server", "scheduler"])
async def test_metrics_need_tls_and_a_token_that_may_read_every_topic(
    store_server: StoreServer, tmp_path: Path, kind: str
) -> None:
    access = AccessFile(tmp_path)
    reads, narrow = access.token("*:read"), access.token("mail:all")
    cert, key = server_pair().write(tmp_path, "server")
    # A supervisor has no certificate, so that one is not asked for here.
    ca = authority().write(tmp_path)
    settings = replace(
        access.settings(),
        tls_server_cert=str(cert), tls_server_key=str(key), tls_client_ca=str(ca),
    )  # fmt: skip
    context = ssl.create_default_context(cafile=str(ca))
    running = (
        serving(store_server, settings, metrics="127.0.0.1:0")
        if kind == "server"
        else scheduling(store_server, settings, metrics="127.0.0.1:0")
    )
    async with running as info:
        assert info.metrics is not None
        for path, token, status in (
            ("/metrics", None, 401),
            ("/metrics", "ddq_no_no", 401),
            ("/metrics", narrow, 403),
            ("/metrics", reads, 200),
            ("/anything", None, 401),
            ("/livez", None, 200),
            ("/readyz", None, 200),
        ):
            asked = await asyncio.to_thread(ask, info.metrics, path, token, context)
            assert asked == status, (path, token)
        with pytest.raises((http.client.HTTPException, OSError)):
            await asyncio.to_thread(ask, info.metrics, "/livez", None, None)
        # A client that connects and sends nothing keeps no other one waiting.
        host, _, port = info.metrics.rpartition(":")
        _, silent = await asyncio.open_connection(host, int(port))
        assert await asyncio.to_thread(ask, info.metrics, "/livez", None, context) == 200
        silent.close()


async def test_metrics_can_stay_open_beside_a_protected_port(
    store_server: StoreServer, tmp_path: Path
) -> None:
    settings = replace(AccessFile(tmp_path).settings(), metrics_insecure=True)
    async with serving(store_server, settings, metrics="127.0.0.1:0") as server:
        assert server.metrics is not None
        assert await asyncio.to_thread(ask, server.metrics, "/metrics", None, None) == 200
