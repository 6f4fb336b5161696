"""TLS on the gRPC port, with real peers: who gets in, and who learns why not."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from ddq.access import CertificateFiles
from ddq.client import Access, AccessError, Client, SyncClient
from ddq.config import Settings, StartupError
from ddq.errors import NotConnected
from ddq.worker import Job, Worker
from tests.support.certificates import Pair, authority, other_authority, server_pair
from tests.support.server import serving
from tests.support.store import StoreServer

OPENSSL_REFUSED = (ssl.SSLError, ConnectionResetError)


def server_settings(folder: Path, pair: Pair | None = None, *, mutual: bool = False) -> Settings:
    cert, key = (pair or server_pair()).write(folder, "server")
    return Settings(
        drain_ms=1,
        tls_server_cert=str(cert),
        tls_server_key=str(key),
        tls_client_ca=str(authority().write(folder, "client-ca")) if mutual else "",
    )


@pytest.fixture
def trusting(tmp_path: Path) -> Access:
    """A client that trusts the tests' authority."""
    return Access(tls_ca=str(authority().write(tmp_path)))


async def refused(address: str, access: Access | None) -> str:
    """The error of a client that does not get in."""
    async with Client(address, timeout_s=20, access=access) as client:
        with pytest.raises(NotConnected) as caught:
            await client.connect()
    return str(caught.value)


async def test_every_kind_of_client_works_over_tls(
    store_server: StoreServer, tmp_path: Path, trusting: Access
) -> None:
    async with serving(store_server, server_settings(tmp_path)) as server:
        async with Client(server.address, access=trusting) as client:
            await client.enqueue("mail", b"one", task_id="a")
            assert await client.check_health()
            done: list[str] = []

            async def handle(job: Job) -> None:
                done.append(job.id)

            # The worker makes a second connection with the same settings.
            await Worker(client, "mail", handle, max_jobs=1).run()
            assert done == ["a"]

        def blocking() -> str:
            with SyncClient(server.address, access=trusting) as sync:
                return sync.enqueue("mail", b"two", task_id="b").id

        assert await asyncio.to_thread(blocking) == "b"


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (lambda: other_authority().issue("127.0.0.1"), "not trusted"),
        (lambda: authority().issue("127.0.0.1", expired=True), "expired"),
        (lambda: authority().issue("queue.example.org"), "another name"),
    ],
    ids=["another authority", "expired", "another name"],
)
async def test_a_client_refuses_a_server_that_does_not_prove_its_name(
    store_server: StoreServer,
    tmp_path: Path,
    trusting: Access,
    pair: Callable[[], Pair],
    words: str,
) -> None:
    async with serving(store_server, server_settings(tmp_path, pair())) as server:
        assert words in await refused(server.address, trusting)


async def test_plain_text_on_a_port_with_tls_and_the_reverse(
    store_server: StoreServer, tmp_path: Path, trusting: Access
) -> None:
    async with serving(store_server, server_settings(tmp_path)) as server:
        assert "does it require TLS" in await refused(server.address, None)
    async with serving(store_server) as server:
        assert "does not use TLS" in await refused(server.address, trusting)


@pytest.mark.parametrize(
    ("version", "accepted"),
    [
        (ssl.TLSVersion.TLSv1, False),
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
)
async def test_tls_below_1_2_is_refused(
    store_server: StoreServer, tmp_path: Path, version: ssl.TLSVersion, accepted: bool
) -> None:
    def shake_hands(address: str) -> str | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=authority().pem.decode())
        # OpenSSL of today would not offer the old versions by itself.
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2"])
        host, _, port = address.rpartition(":")
        with (
            socket.create_connection((host, int(port))) as connection,
            context.wrap_socket(connection, server_hostname=host) as encrypted,
        ):
            return encrypted.version()

    async with serving(store_server, server_settings(tmp_path)) as server:
        if accepted:
            spoken = await asyncio.to_thread(shake_hands, server.address)
            assert spoken == version.name.replace("_", ".")
        else:
            with pytest.raises(OPENSSL_REFUSED):
                await asyncio.to_thread(shake_hands, server.address)


async def test_with_a_client_ca_only_clients_with_its_certificate_get_in(
    store_server: StoreServer, tmp_path: Path, trusting: Access
) -> None:
    async with serving(store_server, server_settings(tmp_path, mutual=True)) as server:
        assert "certificate of the client" in await refused(server.address, trusting)
        stranger = other_authority().issue("worker-1").write(tmp_path, "stranger")
        assert await refused(server.address, with_certificate(trusting, *stranger))
        expired = authority().issue("worker-1", expired=True).write(tmp_path, "expired")
        assert await refused(server.address, with_certificate(trusting, *expired))
        known = authority().issue("worker-1").write(tmp_path, "known")
        async with Client(server.address, access=with_certificate(trusting, *known)) as client:
            assert await client.check_health()


def with_certificate(access: Access, cert: Path, key: Path) -> Access:
    return Access(tls_ca=access.tls_ca, tls_cert=str(cert), tls_key=str(key))


async def test_a_replaced_certificate_is_used_from_the_next_connection_on(
    store_server: StoreServer, tmp_path: Path, trusting: Access, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="ddq.access")
    old = authority().issue("127.0.0.1", "localhost")
    async with serving(store_server, server_settings(tmp_path, old)) as server:
        async with Client(server.address, access=trusting) as early:
            await early.connect()
            # Another authority: only who trusts that one gets in from now on.
            new = other_authority().issue("127.0.0.1", "localhost")
            (tmp_path / "server.pem").write_bytes(new.cert)
            # Between the two files the pair does not fit, and the earlier one stays in use.
            async with Client(server.address, access=trusting) as meanwhile:
                assert await meanwhile.check_health()
            assert "the earlier certificate stays in use" in caplog.text
            (tmp_path / "server.key").write_bytes(new.key)
            assert "not trusted" in await refused(server.address, trusting)
            other = Access(tls_ca=str(other_authority().write(tmp_path, "other")))
            async with Client(server.address, access=other) as late:
                assert await late.check_health()
            # A connection that stands is not affected.
            assert await early.check_health()
        assert caplog.text.count("earlier certificate stays in use") == 1
        assert caplog.text.count("was read again") == 1


async def test_the_authority_of_clients_is_read_again_too(
    store_server: StoreServer, tmp_path: Path, trusting: Access
) -> None:
    own = authority().issue("worker-1").write(tmp_path, "own")
    other = other_authority().issue("worker-1").write(tmp_path, "other")
    async with serving(store_server, server_settings(tmp_path, mutual=True)) as server:
        other_authority().write(tmp_path, "client-ca")
        assert await refused(server.address, with_certificate(trusting, *own))
        async with Client(server.address, access=with_certificate(trusting, *other)) as client:
            assert await client.check_health()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"cert": "nowhere.pem"}, "No such file"),
        ({"cert": "server.pem"}, "is it PEM"),
        ({"cert": "other.pem", "key": "server.key"}, "does the key belong"),
        ({"cert": "text.pem", "key": "server.key"}, "is it PEM"),
        ({"cert": "server.pem", "key": "server.key", "client_ca": "text.pem"}, "text.pem"),
        ({"key": "server.key"}, "without tls_server_cert"),
        ({"client_ca": "ca.pem"}, "without tls_server_cert"),
    ],
)
def test_files_that_cannot_be_used_are_named_at_the_start(
    tmp_path: Path, names: dict[str, str], words: str
) -> None:
    server_pair().write(tmp_path, "server")
    other_authority().issue("x").write(tmp_path, "other")
    authority().write(tmp_path)
    (tmp_path / "text.pem").write_text("not a certificate")
    given = {name: str(tmp_path / value) for name, value in names.items()}
    settings = Settings(
        tls_server_cert=given.get("cert", ""),
        tls_server_key=given.get("key", ""),
        tls_client_ca=given.get("client_ca", ""),
    )
    with pytest.raises(StartupError, match=words):
        CertificateFiles.of(settings)


def test_a_key_with_a_passphrase_is_refused_without_a_question(tmp_path: Path) -> None:
    cert, _ = server_pair().write(tmp_path, "server")
    key = tmp_path / "locked.key"
    key.write_bytes(locked(server_pair().key))
    with pytest.raises(StartupError, match="cannot be used"):
        CertificateFiles(cert, key)


def locked(key: bytes) -> bytes:
    from cryptography.hazmat.primitives import serialization as s

    loaded = s.load_pem_private_key(key, None)
    return loaded.private_bytes(
        s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"secret")
    )


@pytest.mark.parametrize(
    ("access", "words"),
    [
        (Access(tls_ca="/nonexistent/ca.pem"), "tls_ca '/nonexistent/ca.pem' cannot be read"),
        (Access(tls_key="/nonexistent/key"), "tls_key is given without tls_cert"),
        (Access(token_file="/nonexistent/token"), "cannot be read"),
        (Access(token="a b"), "has no token"),
        (Access(token="a", token_file="b"), "both given"),
    ],
)
def test_settings_of_a_client_that_cannot_be_used(access: Access, words: str) -> None:
    with pytest.raises(AccessError, match=words):
        Client("127.0.0.1:1", access=access)


def test_a_token_does_not_travel_unencrypted_to_another_machine() -> None:
    with pytest.raises(AccessError, match="unencrypted"):
        Client("queue.example.org:50051", access=Access(token="secret"))


def test_the_environment_has_the_same_settings() -> None:
    environment = {
        "DDQ_TLS": "true",
        "DDQ_TLS_CA": "a",
        "DDQ_TLS_CERT": "b",
        "DDQ_TLS_KEY": "c",
        "DDQ_TOKEN_FILE": "d",
        "DDQ_TOKEN": "e",
        "DDQ_PLAIN_TOKEN": "0",
    }
    assert Access.from_environment(environment) == Access(
        tls=True, tls_ca="a", tls_cert="b", tls_key="c", token_file="d", token="e"
    )
    assert Access.from_environment({}) == Access()
    with pytest.raises(AccessError, match="DDQ_TLS is 'maybe'"):
        Access.from_environment({"DDQ_TLS": "maybe"})
