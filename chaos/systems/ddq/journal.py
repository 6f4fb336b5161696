"""Reads what ddq keeps in the surviving store, by ddq's own key layout."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from chaos.clusters import Cluster
from chaos.clusters.process import ShardedCluster
from ddq.store.keys import ShardId

PAGE = 1_000


@asynccontextmanager
async def open_store(cluster: Cluster) -> AsyncIterator[Redis]:
    """A connection to the surviving master; in a Cluster to the masters of all slots."""
    node = await cluster.wait_for_master()
    if isinstance(cluster, ShardedCluster):
        async with RedisCluster(host=node.ip, port=node.port) as sharded:
            # It answers the commands of one server, each from the master that has the key.
            yield cast("Redis", sharded)
    else:
        async with Redis(host=node.ip, port=node.port) as store:
            yield store


async def write_journal(
    path: Path, store: Redis, shards: Mapping[str, int]
) -> dict[str, list[int]]:
    """Writes the journals of topics, shard by shard.

    Args:
        store: of the surviving master, without decode_responses.
        shards: topic → how many it has.

    Returns:
        Topic → how many entries the stream of each shard has dropped, by what it says itself.
    """
    encode = msgspec.json.Encoder().encode
    trimmed: dict[str, list[int]] = {}
    with path.open("wb") as file:
        for topic, count in shards.items():
            for shard in range(count):
                key, after = ShardId(topic, shard).key("journal"), "-"
                trimmed.setdefault(topic, []).append(await _trimmed_count(store, key))
                while page := await _page(store, key, after):
                    for stream_id, fields in page:
                        entry = _entry(topic, shard, stream_id, fields)
                        file.write(encode(entry) + b"\n")
                        after = "(" + entry["stream_id"]
    return trimmed


async def _trimmed_count(store: Redis, key: str) -> int:
    if not await store.exists(key):
        return 0
    stream: Any = await store.xinfo_stream(key)
    return int(stream["entries-added"]) - int(stream["length"])


async def _page(store: Redis, key: str, after: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    page: Any = await store.xrange(key, min=after, count=PAGE)
    return list(page)


def _entry(topic: str, shard: int, stream_id: bytes, fields: dict[bytes, bytes]) -> dict[str, Any]:
    entry: dict[str, Any] = {"topic": topic, "shard": shard, "stream_id": stream_id.decode()}
    for name, value in fields.items():
        text = name.decode()
        if text == "lineage":
            entry[text] = value.hex()
        elif text in {"op", "id", "from", "to", "owner"}:
            entry[text] = value.decode()
        else:
            entry[text] = int(value)
    return entry


__all__ = ["open_store", "write_journal"]
