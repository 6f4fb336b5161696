"""What several of these tests run on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chaos.clusters.process import ShardedCluster


@pytest.fixture
async def sharded(tmp_path: Path) -> AsyncIterator[ShardedCluster]:
    cluster = ShardedCluster(folder=tmp_path)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()
