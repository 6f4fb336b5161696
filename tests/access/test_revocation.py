"""Tokens and certificates at a running server: new ones, revoked ones, and calls that wait."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chaos.eventually import eventually
from ddq.access import Guard, guard
from ddq.access.files import signature
from ddq.client import Access, Client
from ddq.errors import PermissionDenied, Unauthenticated
from ddq.worker import Job, Worker
from tests.support.access import AccessFile
from tests.support.certificates import authority, server_pair
from tests.support.server import serving
from tests.support.store import StoreServer


@dataclass
class Guarded:
    """A server with an access file."""

    address: str
    guard: Guard
    access: AccessFile

    async def read_again(self) -> None:
        """Returns when the server has read the file as it is now."""
        await eventually(lambda: self.guard._signature == signature(self.access.path), None)

    async def has_waiting(self, count: int) -> None:
        """Returns when so many calls wait at the server."""
        await eventually(
            lambda: sum(bool(call.topics) for call in self.guard._waiting) >= count, None
        )


@pytest.fixture
def access(tmp_path: Path) -> AccessFile:
    return AccessFile(tmp_path)


@pytest.fixture
async def server(
    store_server: StoreServer, access: AccessFile, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Guarded]:
    made = Guard.of(access.settings())
    assert made is not None
    monkeypatch.setattr(Guard, "of", lambda _settings: made)
    async with serving(store_server, access.settings()) as running:
        yield Guarded(running.address, made, access)


async def test_a_new_token_is_known_and_a_revoked_one_is_not(
    server: Guarded, access: AccessFile
) -> None:
    assert guard.CHECK_INTERVAL_S < 1
    token = access.token("mail:all")
    await server.read_again()
    async with Client(server.address, access=Access(token=token)) as client:
        await client.enqueue("mail", b"x")
        with pytest.raises(PermissionDenied, match="needs the scope other:produce"):
            await client.enqueue("other", b"x")
        access.revoke(token)
        await server.read_again()
        with pytest.raises(Unauthenticated, match="revoked"):
            await client.stats("mail")


@pytest.mark.parametrize("how", ["stream", "wait"])
async def test_a_revocation_ends_a_call_that_waits(
    server: Guarded, access: AccessFile, how: str
) -> None:
    token, other = access.token("mail:all"), access.token("mail:all")
    await server.read_again()
    async with (
        Client(server.address, access=Access(token=token)) as client,
        Client(server.address, access=Access(token=other)) as untouched,
    ):
        await client.create_topic("mail")

        async def waits(client: Client) -> Any:
            if how == "wait":
                return await client.retrieve("mail", wait=timedelta(seconds=50))
            async with client.stream_retrieve("mail") as stream:
                stream.add_credit(1)
                return await stream.read()

        ended = asyncio.create_task(waits(client))
        stays = asyncio.create_task(waits(untouched))
        await server.has_waiting(2)
        access.revoke(token)
        with pytest.raises(Unauthenticated):
            await ended
        await untouched.enqueue("mail", b"x")
        assert len(await stays) == 1


async def test_a_narrower_scope_ends_a_stream_of_another_topic(
    server: Guarded, access: AccessFile
) -> None:
    token = access.token("mail:all")
    await server.read_again()
    async with Client(server.address, access=Access(token=token)) as client:
        await client.create_topic("mail")
        async with client.stream_retrieve("mail") as stream:
            stream.add_credit(1)
            reading = asyncio.create_task(stream.read())
            await server.has_waiting(1)
            document = json.loads(access.path.read_text())
            document["entries"][0]["scopes"] = ["other:consume"]
            access.path.write_text(json.dumps(document))
            with pytest.raises(PermissionDenied, match="mail:consume"):
                await reading


async def test_a_stream_ends_when_its_token_expires(
    server: Guarded, access: AccessFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_s = int(time.time()) + 1_000
    token = access.token("mail:all", expires_s=end_s)
    await server.read_again()
    async with Client(server.address, access=Access(token=token)) as client:
        await client.create_topic("mail")
        async with client.stream_retrieve("mail") as stream:
            stream.add_credit(1)
            reading = asyncio.create_task(stream.read())
            await server.has_waiting(1)
            monkeypatch.setattr("ddq.access.guard.time.time", lambda: float(end_s))
            with pytest.raises(Unauthenticated, match="expired"):
                await reading


async def test_a_broken_file_leaves_in_effect_what_was_before(
    server: Guarded, access: AccessFile, caplog: pytest.LogCaptureFixture
) -> None:
    token = access.token("mail:all")
    await server.read_again()
    good = access.path.read_text()
    access.path.write_text("{")
    await eventually(lambda: "stays in effect" in caplog.text, None)
    async with Client(server.address, access=Access(token=token)) as client:
        await client.enqueue("mail", b"x")
        access.path.write_text(good)
        access.revoke(token)
        await server.read_again()
        with pytest.raises(Unauthenticated):
            await client.stats("mail")


async def test_a_worker_and_a_token_file_that_is_replaced(
    server: Guarded, access: AccessFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddq.client.access.TOKEN_CHECK_S", 0.0)
    first, second = access.token("mail:all"), access.token("mail:all")
    await server.read_again()
    file = tmp_path / "token"
    file.write_text(f"{first}\n")
    async with Client(server.address, access=Access(token_file=str(file))) as client:
        await client.enqueue("mail", b"x")
        file.write_text(f"{second}\n")
        access.revoke(first)
        await server.read_again()
        done: list[bytes] = []

        async def handle(job: Job) -> None:
            done.append(job.payload)

        await Worker(client, "mail", handle, max_jobs=1).run()
        assert done == [b"x"]


async def test_a_worker_whose_token_is_revoked_ends(server: Guarded, access: AccessFile) -> None:
    token = access.token("mail:all")
    await server.read_again()
    async with Client(server.address, access=Access(token=token)) as client:
        await client.create_topic("mail")

        async def handle(_job: Job) -> None:
            pass

        running = asyncio.create_task(Worker(client, "mail", handle).run())
        access.revoke(token)
        with pytest.raises(Unauthenticated):
            await running


async def test_a_certificate_is_an_identity_over_a_real_connection(
    store_server: StoreServer, tmp_path: Path, access: AccessFile
) -> None:
    ca = authority().write(tmp_path)
    cert, key = server_pair().write(tmp_path, "server")
    access.certificate("dns:worker-1", "mail:produce")
    token = access.token("other:produce")
    settings = replace(
        access.settings(),
        tls_server_cert=str(cert), tls_server_key=str(key), tls_client_ca=str(ca),
    )  # fmt: skip

    def client_of(name: str, token: str | None = None) -> Client:
        own, own_key = authority().issue(name).write(tmp_path, name)
        mine = Access(tls_ca=str(ca), tls_cert=str(own), tls_key=str(own_key), token=token)
        return Client(running.address, access=mine)

    async with serving(store_server, settings, scheduler=False) as running:
        async with client_of("worker-1") as worker:
            await worker.enqueue("mail", b"x")
            with pytest.raises(PermissionDenied, match="certificate dns:worker-1"):
                await worker.enqueue("other", b"x")
        async with client_of("worker-2") as stranger:
            with pytest.raises(Unauthenticated, match="dns:worker-2"):
                await stranger.enqueue("mail", b"x")
        async with client_of("worker-2", token) as with_token:
            await with_token.enqueue("other", b"x")
