"""A connection that speaks to masters only, whatever happens while it asks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import redis.exceptions

from ddq.store.connection import Command, NotSentError, Reply, ReplyLostError
from ddq.store.topology import Node
from ddq.store.topology.master import MasterConnection

NODE = Node("store", 1)
MASTER = [b"master", 1, []]


class Wire:
    """A lower seam that answers ROLE with ``role``, and all other commands with OK."""

    def __init__(self, role: Any = MASTER) -> None:
        self.role = role
        self.sent: list[Command] = []
        self.closings = 0
        self.while_asked: Callable[[], Awaitable[None]] | None = None

    async def send(self, commands: Sequence[Command], timeout_s: float) -> list[Reply]:
        assert timeout_s > 0
        self.sent += commands
        if commands != [("ROLE",)]:
            return [b"OK"] * len(commands)
        if self.while_asked is not None:
            await self.while_asked()
        if isinstance(self.role, Exception) and not isinstance(
            self.role, redis.exceptions.RedisError
        ):
            raise self.role
        return [self.role]

    async def close(self) -> None:
        self.closings += 1


@pytest.mark.parametrize(
    ("role", "words"),
    [
        ([b"slave", b"other", 1, b"connected", 1], "store:1 is a replica now, and no master"),
        ([b"sentinel", []], "store:1 is a sentinel now, and no master"),
        (b"OK", "and no master"),
        ([], "and no master"),
        (redis.exceptions.NoPermissionError("no permissions"), "does not say its role: no perm"),
        (NotSentError("refused"), "store:1: refused"),
        # Only the question for the role was sent: the script had no effect.
        (ReplyLostError("cut"), "store:1 did not say its role: cut"),
    ],
)
async def test_anything_but_a_master_gets_no_script(role: Any, words: str) -> None:
    wire = Wire(role)
    connection = MasterConnection(wire, NODE)
    with pytest.raises(NotSentError, match=words):
        await connection.send([("EVALSHA", "x")], 20.0)
    assert wire.sent == [("ROLE",)]
    assert wire.closings == 1, "it asks again, on a new connection"


async def test_one_that_was_closed_while_it_asked_does_not_go_on_unchecked() -> None:
    wire = Wire()
    connection = MasterConnection(wire, NODE)
    wire.while_asked = connection.close
    with pytest.raises(NotSentError, match="was closed"):
        await connection.send([("EVALSHA", "x")], 20.0)
    wire.while_asked = None
    await connection.send([("EVALSHA", "x")], 20.0)
    assert wire.sent == [("ROLE",), ("ROLE",), ("EVALSHA", "x")]


async def test_the_time_for_the_role_is_part_of_the_whole() -> None:
    wire = Wire()
    connection = MasterConnection(wire, NODE)

    async def dawdle() -> None:
        await asyncio.sleep(0.02)

    wire.while_asked = dawdle
    with pytest.raises(NotSentError, match="took too long to say its role"):
        await connection.send([("EVALSHA", "x")], 0.01)
