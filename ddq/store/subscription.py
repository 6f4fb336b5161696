"""One subscription on one connection, which has to keep talking."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import redis.exceptions
from redis.asyncio.connection import AbstractConnection, UnixDomainSocketConnection

# Behind a partition a connection stays open and says nothing for hours. One that is well answers a
# PING within the interval. No partition comes between the ends of a Unix socket: nothing is sent
# there, and the embedded store of an idle server is left in peace.
SILENCE_MAX_S = 6.0
PING_INTERVAL_S = 2.0
OPEN_TIMEOUT_S = 5.0


class Subscription:
    """The messages of one channel.

    Iterating raises OSError (TimeoutError among them) or redis.exceptions.RedisError when the
    connection is lost or silent, or was interrupted.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._silence_max_s = None if _is_local(connection) else SILENCE_MAX_S
        self._silence: asyncio.Timeout | None = None
        self._interrupted = False

    def interrupt(self) -> None:
        """Makes the reader stop with TimeoutError."""
        self._interrupted = True
        if self._silence is not None:
            self._silence.reschedule(asyncio.get_running_loop().time())

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Each message's content."""
        while True:
            message = await self._read()
            if message is not None:
                yield message

    async def _read(self) -> bytes | None:
        """The next message; None for an answer to PING and the like."""
        try:
            silence_s = 0 if self._interrupted else self._silence_max_s
            async with asyncio.timeout(silence_s) as self._silence:
                kind, *rest = await self._connection.read_response(disable_decoding=True)
        except TimeoutError:
            raise TimeoutError(
                "interrupted" if self._interrupted else f"silent for {SILENCE_MAX_S:g} s"
            ) from None
        finally:
            self._silence = None
        return rest[1] if kind == b"message" else None


@contextlib.asynccontextmanager
async def subscribed(connection: AbstractConnection, channel: str) -> AsyncIterator[Subscription]:
    """Opens the connection, subscribes, and closes it in the end.

    Raises:
        OSError, redis.exceptions.RedisError: it cannot be opened.
    """
    pings: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            await connection.connect()  # type: ignore[no-untyped-call]
            await _send(connection, "SUBSCRIBE", channel)
            await connection.read_response(disable_decoding=True)
        if not _is_local(connection):
            pings = asyncio.create_task(_ping(connection), name="ddq subscription ping")
        yield Subscription(connection)
    finally:
        if pings is not None:
            pings.cancel()
            # When it could not send the reader has noticed too.
            await asyncio.gather(pings, return_exceptions=True)
        with contextlib.suppress(OSError, redis.exceptions.RedisError):
            await connection.disconnect(nowait=True)


def _is_local(connection: AbstractConnection) -> bool:
    return isinstance(connection, UnixDomainSocketConnection)


async def _ping(connection: AbstractConnection) -> None:
    while True:
        await asyncio.sleep(PING_INTERVAL_S)
        await _send(connection, "PING")


async def _send(connection: AbstractConnection, *command: str) -> None:
    await connection.send_packed_command(connection.pack_command(*command), check_health=False)
