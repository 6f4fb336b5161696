"""The comparison of what the nodes of a store hold."""

from __future__ import annotations

from redis.asyncio import Redis

from chaos.systems.ddq.replicas import digest
from tests.support.server import RunningServer


async def test_a_digest_depends_on_the_content_and_not_on_its_order(server: RunningServer) -> None:
    async with Redis.from_url(server.store.url) as store:
        await store.hset("one", mapping={f"field{n}": n for n in range(1_000)})
        await store.hset("other", mapping={f"field{n}": n for n in reversed(range(1_000))})
        assert await digest(store, "one") == await digest(store, "other")
        await store.hset("other", "field7", "8")
        assert await digest(store, "one") != await digest(store, "other")
        await store.zadd("scores", {"a": 1})
        before = await digest(store, "scores")
        await store.zadd("scores", {"a": 2})
        assert await digest(store, "scores") != before
        await store.xadd("entries", {"op": "ack"})
        assert await digest(store, "entries") != await digest(store, "missing")
        await store.set("text", "a")
        assert await digest(store, "text") != await digest(store, "missing")
