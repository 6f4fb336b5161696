"""A store of its own for each test process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddq.store.embedded import EmbeddedStore


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of planned faults would be logged as warnings."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def stateful_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The socket of a server that only these tests use."""
    folder: Path = tmp_path_factory.mktemp("stateful")
    with asyncio.Runner() as runner:
        store = EmbeddedStore(folder, sync_always=False)
        runner.run(store.start())
        try:
            yield str(store.socket_path)
        finally:
            runner.run(store.stop())
