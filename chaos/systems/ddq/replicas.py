"""Compares what the nodes of a store hold of some shards, key by key."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from chaos.clusters import StoreNode

POLL_S = 0.5


async def digest(store: Any, key: str) -> str:
    """What stands under a key, as a text that depends on nothing else.

    Hashes and sets have another order on each node, and short values another encoding.

    Args:
        store: a Redis client without decode_responses.
    """
    kind = (await store.type(key)).decode()
    content: Any
    if kind == "none":
        content = None
    elif kind == "string":
        content = await store.get(key)
    elif kind == "hash":
        content = sorted((await store.hgetall(key)).items())
    elif kind == "zset":
        content = await store.zrange(key, 0, -1, withscores=True)
    elif kind == "stream":
        content = [(each[0], sorted(each[1].items())) for each in await store.xrange(key)]
    else:
        raise ValueError(f"{key} is a {kind}, which no shard has")
    return sha256(repr((kind, content)).encode()).hexdigest()


async def differing_keys(
    nodes: Sequence[StoreNode], keys: Iterable[str], timeout_s: float
) -> list[str]:
    """Keys that do not become equal on all nodes within this time.

    A scheduler may still prolong its leadership, and a replica follows a moment later.

    Raises:
        RedisError, OSError: a node does not answer.
    """
    stores: list[Any] = [Redis(host=node.ip, port=node.port) for node in nodes]
    try:
        for store in stores:
            # A replica of a Cluster refuses to be read otherwise; other stores may not know it.
            with contextlib.suppress(ResponseError):
                await store.execute_command("READONLY")
        loop = asyncio.get_running_loop()
        end_s = loop.time() + timeout_s
        left = list(keys)
        while True:
            left = [key for key in left if not await _is_equal(stores, key)]
            if not left or loop.time() >= end_s:
                return left
            await asyncio.sleep(POLL_S)
    finally:
        for store in stores:
            await store.aclose()


async def _is_equal(stores: Sequence[Any], key: str) -> bool:
    return len({await digest(store, key) for store in stores}) == 1


__all__ = ["differing_keys", "digest"]
