from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ddq.client import Client
from tests.client.fake import FakeServer, FakeTiming, serving


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with serving() as fake:
        yield fake


@pytest.fixture
def timing() -> FakeTiming:
    return FakeTiming()


@pytest.fixture
async def client(server: FakeServer, timing: FakeTiming) -> AsyncIterator[Client]:
    async with Client(server.address, timeout_s=10.0, timing=timing) as made:
        yield made
