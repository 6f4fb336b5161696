"""What a connection says of a pipeline that was refused, or broke, in the middle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import redis.exceptions

from ddq.store.connection import NotSentError, RedisConnection, ReplyLostError

LOADING = redis.exceptions.BusyLoadingError("the dataset is being loaded")


class Driver:
    """redis-py's connection, with these replies."""

    def __init__(self, replies: Sequence[Any]) -> None:
        self._replies = iter(replies)

    async def connect(self) -> None:
        """Opens it."""

    def pack_commands(self, commands: Any) -> Any:
        """As the driver."""
        return commands

    async def send_packed_command(self, packed: Any, *, check_health: bool) -> None:
        """Sends nothing."""

    async def read_response(self, *, disable_decoding: bool) -> Any:
        """The next reply, raised if it is an error."""
        reply = next(self._replies)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def disconnect(self, *, nowait: bool) -> None:
        """Closes it."""


async def send(replies: Sequence[Any]) -> list[Any]:
    driver: Any = Driver(replies)
    return await RedisConnection(lambda: driver).send([("A",), ("B",)], 1.0)


async def test_a_store_that_loads_its_data_has_run_nothing() -> None:
    with pytest.raises(NotSentError):
        await send([LOADING])


async def test_a_store_that_begins_to_load_in_the_middle_has_run_what_it_answered() -> None:
    with pytest.raises(ReplyLostError):
        await send([b"OK", LOADING])


async def test_an_error_of_one_command_stands_in_its_place() -> None:
    error = redis.exceptions.ResponseError("wrong type")
    assert await send([error, b"OK"]) == [error, b"OK"]
