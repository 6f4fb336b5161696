"""The fixtures that all tests may ask for; tests/conftest.py hands them on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from ddq.config import Settings
from tests.support.conservation import assert_all_conserved
from tests.support.queue import Queue
from tests.support.server import RunningServer, serving
from tests.support.store import ControlledStore, StoreServer, run_store


@pytest.fixture(scope="session")
def store_process() -> Iterator[StoreServer]:
    """The Valkey of this test process."""
    with run_store() as server:
        yield server


@pytest.fixture
def store_server(store_process: StoreServer) -> StoreServer:
    """The same, empty."""
    store_process.sync.flushall()
    return store_process


OpenStoreHere = Callable[..., ControlledStore]


@pytest.fixture
async def open_store_here(store_server: StoreServer) -> AsyncIterator[OpenStoreHere]:
    """Opens stores; a second one on the same server is another process's view of it."""
    opened: list[ControlledStore] = []

    def open_one(**options: Any) -> ControlledStore:
        settings = options.pop("settings", Settings())
        if opened:
            options.setdefault("clock", opened[0].clock)
            options.setdefault("seed", 7 + len(opened))
        opened.append(ControlledStore(store_server, settings, **options))
        return opened[-1]

    yield open_one
    for controlled_store in opened:
        await controlled_store.close()


@pytest.fixture
async def controlled_store(open_store_here: OpenStoreHere) -> ControlledStore:
    """A store whose time and entropy the test owns."""
    return open_store_here()


@pytest.fixture
async def queue(controlled_store: ControlledStore) -> AsyncIterator[Queue]:
    """A topic, made; at the end of the test everything in the store has to add up (G11)."""
    queue = Queue(controlled_store)
    await queue.create()
    yield queue
    assert_all_conserved(controlled_store.server.sync)


@pytest.fixture
async def damaged_queue(controlled_store: ControlledStore) -> Queue:
    """A topic that the test damages by hand; it is not recounted at the end."""
    queue = Queue(controlled_store)
    await queue.create()
    return queue


@pytest.fixture
async def server(store_server: StoreServer) -> AsyncIterator[RunningServer]:
    """A whole ddq server in this process, with a channel to it."""
    async with serving(store_server) as running:
        yield running


__all__ = [
    "OpenStoreHere",
    "controlled_store",
    "damaged_queue",
    "open_store_here",
    "queue",
    "server",
    "store_process",
    "store_server",
]
