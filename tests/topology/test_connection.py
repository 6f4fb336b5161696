"""A connection leaves no socket behind, however it ends."""

from __future__ import annotations

import asyncio

import pytest

from ddq.store.connection import NotSentError, RedisConnection
from ddq.store.topology import Access, StoreUrl
from tests.support.fake_redis import FakeRedis, until


class Store(FakeRedis):
    """Takes what a client says when it connects."""

    def answer(self, command: tuple[str, ...]) -> object:
        return "OK"


@pytest.mark.parametrize("end", ["timeout", "cancelled", "closed"])
async def test_a_store_that_hangs_while_a_connection_opens_keeps_no_socket(end: str) -> None:
    """A stopped store accepts connections, and answers nothing that is said on them."""
    store = Store()
    await store.start()
    store.hangs = True
    # With a password there is something to say.
    url = StoreUrl("tcp", seeds=(store.node,), access=Access("user", "secret"))
    connection = RedisConnection(lambda: url.connection_to(store.node))
    sending = asyncio.create_task(connection.send([("PING",)], 0.1 if end == "timeout" else 30.0))
    await until(lambda: store.open_count == 1)
    if end == "cancelled":
        sending.cancel()
    elif end == "closed":
        await connection.close()
    if end != "closed":
        with pytest.raises(NotSentError if end == "timeout" else asyncio.CancelledError):
            await sending
    await until(lambda: store.open_count == 0)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await store.stop()
