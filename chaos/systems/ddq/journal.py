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


async def write_journal(path: Path, store: Redis, shards: Mapping[str, int]) -> int:
    """Writes the journals of topics, shard by shard. Returns how many entries there are.

    Args:
        store: of the surviving master, without decode_responses.
        shards: topic → how many it has.
    """
    encode = msgspec.json.Encoder().encode
    written = 0
    with path.open("wb") as file:
        for topic, count in shards.items():
            for shard in range(count):
                key, after = ShardId(topic, shard).key("journal"), "-"
                while page := await _page(store, key, after):
                    for stream_id, fields in page:
                        entry = _entry(topic, shard, stream_id, fields)
                        file.write(encode(entry) + b"\n")
                        after = "(" + entry["stream_id"]
                    written += len(page)
    return written


async def _page(store: Redis, key: str, after: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    page: Any = await store.xrange(key, min=after, count=PAGE)
    return list(page)


def _entry(topic: str, shard: int, stream_id: bytes, fields: dict[bytes, bytes]) -> dict[str, Any]:
    entry: dict[str, Any] = {"topic": topic, "shard": shard, "stream_id": stream_id.decode()}
    for name, value in fields.items():
        text = name.decode()
        if text == "lineage":
            entry[text] = value.hex()
        elif text in {"op", "id", "from", "to"}:
            entry[text] = value.decode()
        else:
            entry[text] = int(value)
    return entry


__all__ = ["open_store", "write_journal"]
