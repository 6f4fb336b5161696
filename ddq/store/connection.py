"""The lower seam: a list of commands goes out in one send and is answered as a whole.

Everything above speaks only this. Tests put a store of their own making behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import hiredis
import redis.exceptions
from redis.asyncio.connection import AbstractConnection

Command = tuple[str | bytes | int, ...]
Reply = Any
"""A decoded RESP value, or a redis ResponseError in its place."""


class NotSentError(Exception):
    """Nothing reached the store: the commands certainly had no effect."""


class ReplyLostError(Exception):
    """The commands were, or may have been, sent, and the answer did not come."""


class Connection(Protocol):
    """One ordered way to one store node."""

    async def send(self, commands: Sequence[Command], timeout_s: float) -> list[Reply]:
        """Sends all commands at once and returns one reply each, errors in place.

        Raises:
            NotSentError: nothing was sent.
            ReplyLostError: anything from none to all of the commands may have run.
        """

    async def close(self) -> None:
        """Closes the connection; a later send opens it again."""


class RedisConnection:
    """A Connection over redis-py's, whose own retries stay switched off.

    The driver would silently send a timed-out script again; only the caller
    knows whether that is safe.
    """

    def __init__(self, make: Callable[[], AbstractConnection]) -> None:
        self._make = make
        self._connection: AbstractConnection | None = None

    async def send(self, commands: Sequence[Command], timeout_s: float) -> list[Reply]:
        """See Connection.send."""
        sent = False
        replies: list[Reply] = []
        try:
            async with asyncio.timeout(timeout_s):
                connection = self._connection
                if connection is None:
                    # Kept before it is open: a store that hangs while it opens ends this by the
                    # timeout, and an open socket that nothing refers to would stay.
                    connection = self._connection = self._make()
                    await connection.connect()  # type: ignore[no-untyped-call]
                    if self._connection is not connection:
                        await connection.disconnect(nowait=True)
                        raise NotSentError("the connection was closed while it opened")
                # redis-py packs in Python, which takes several times as long.
                packed = [hiredis.pack_command(command) for command in commands]  # type: ignore[arg-type]
                sent = True
                await connection.send_packed_command(packed, check_health=False)
                for _ in commands:
                    replies.append(await self._read(connection))  # noqa: PERF401 - see below
                return replies
        except (OSError, redis.exceptions.RedisError, TimeoutError) as error:
            await self.close()
            # A store that still loads its data refuses every command before it runs. One that
            # begins to load in the middle has run those that it answered.
            is_loading = isinstance(error, redis.exceptions.BusyLoadingError)
            if sent and (replies or not is_loading):
                raise ReplyLostError(_describe(error)) from error
            raise NotSentError(_describe(error)) from error
        except BaseException:
            # Cancelled in the middle: whatever is still on its way would be taken for the
            # answer to the next command.
            await self.close()
            raise

    @staticmethod
    async def _read(connection: AbstractConnection) -> Reply:
        try:
            return await connection.read_response(disable_decoding=True)
        except redis.exceptions.ReadOnlyError as error:
            return error
        except redis.exceptions.ConnectionError:
            raise
        except redis.exceptions.ResponseError as error:
            return error

    async def close(self) -> None:
        """Closes the connection; a later send opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


def _describe(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
