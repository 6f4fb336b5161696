"""/livez and /readyz: whether a process lives, whether it is ready, and why not."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from ddq.config import Settings
from ddq.health import Health, Readiness
from tests.support.rpc import DEADLINE_S
from tests.support.server import scheduling, serving
from tests.support.store import StoreServer

FREE = "127.0.0.1:0"


def read(address: str | None, path: str) -> tuple[int, Any]:
    """The status and the document of a path."""
    assert address is not None
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=DEADLINE_S) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


async def ask(address: str | None, path: str) -> tuple[int, Any]:
    """The same without keeping the process from answering."""
    return await asyncio.to_thread(read, address, path)


@pytest.mark.parametrize("kind", ["server", "scheduler"])
async def test_a_process_is_not_ready_while_its_store_is_away_and_says_why(
    kind: str, store_server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddq.store.watching.HEALTH_INTERVAL_S", 0.02)
    monkeypatch.setattr("ddq.store.watching.HEALTH_RETRY_S", 0.02)
    settings = Settings(drain_ms=1)
    context = (
        serving(store_server, settings, metrics=FREE)
        if kind == "server"
        else scheduling(store_server, settings, metrics=FREE)
    )
    async with context as process:
        address = process.metrics
        assert await ask(address, "/livez") == (200, {"live": True, "reasons": []})
        assert await ask(address, "/readyz") == (200, {"ready": True, "reasons": []})
        store_server.sync.config_set("min-replicas-to-write", 1)
        try:
            async with asyncio.timeout(DEADLINE_S):
                while (await ask(address, "/readyz"))[0] == 200:
                    pass
            status, found = await ask(address, "/readyz")
            assert (status, found["ready"]) == (503, False)
            (reason,) = found["reasons"]
            assert reason["part"] == "store"
            assert "fewer replicas" in reason["reason"]
            # A restart does not mend the store.
            assert (await ask(address, "/livez"))[0] == 200
        finally:
            store_server.sync.config_set("min-replicas-to-write", 0)
        async with asyncio.timeout(DEADLINE_S):
            while (await ask(address, "/readyz"))[0] == 503:
                pass


async def test_a_store_whose_settings_lose_writes_is_a_reason(
    store_server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddq.store.watching.HEALTH_INTERVAL_S", 0.02)
    monkeypatch.setattr("ddq.store.watching.SETTINGS_INTERVAL_S", 0.02)
    async with serving(store_server, metrics=FREE) as server:
        store_server.sync.config_set("maxmemory-policy", "allkeys-lru")
        try:
            async with asyncio.timeout(DEADLINE_S):
                while (found := await ask(server.metrics, "/readyz"))[0] == 200:
                    pass
        finally:
            store_server.sync.config_set("maxmemory-policy", "noeviction")
        (reason,) = found[1]["reasons"]
        assert reason["part"] == "store settings"
        assert "maxmemory-policy" in reason["reason"]


async def test_a_process_whose_event_loop_hangs_is_not_live(
    store_server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddq.monitoring.LIVE_TIMEOUT_S", 0.1)
    async with serving(store_server, metrics=FREE) as server:
        # Asked in this thread, which keeps the event loop from running.
        assert read(server.metrics, "/livez") == (
            503, {"live": False, "reasons": [
                {"part": "event loop", "reason": "it has not run for 0.1 s"}
            ]},
        )  # fmt: skip


async def test_a_process_that_stops_is_not_ready(
    store_server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    drains, goes = asyncio.Event(), asyncio.Event()

    async def drain(*_: object, **__: object) -> None:
        drains.set()
        await goes.wait()

    monkeypatch.setattr("ddq.server.main.drain", drain)
    async with serving(store_server, metrics=FREE) as server:
        server.stop.set()
        await drains.wait()
        try:
            status, found = await ask(server.metrics, "/readyz")
            assert (status, found["reasons"][0]["part"]) == (503, "stop")
            assert (await ask(server.metrics, "/livez"))[0] == 200
        finally:
            goes.set()


def test_a_new_process_is_not_ready_until_it_has_started() -> None:
    health = Health()
    assert health.readiness() == Readiness(False, {"start": "the store has not answered yet"})
    health.report("store", "away")
    health.started()
    assert health.readiness() == Readiness(False, {"store": "away"})
    health.report("store", None)
    assert health.readiness() == Readiness(True, {})
