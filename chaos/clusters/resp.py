"""The store's protocol, as much of it as watching a cluster needs: one command, one answer.

Not a client library: those retry, pool and cache, and what this one sees must be what was there. It
also binds its own end to an address of its own, so that a partition which cuts clients off does not
make a watcher blind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeAlias

Reply: TypeAlias = "int | str | list[Reply] | None"


class ReplyError(Exception):
    """The node answered with an error."""


async def ask(
    ip: str,
    port: int,
    words: Sequence[str],
    *,
    timeout_s: float = 2.0,
    source_ip: str | None = None,
) -> Reply:
    """Sends one command on a connection of its own.

    Raises:
        OSError: no connection, it broke, or there was no answer in time.
        ReplyError: the answer is an error.
    """
    async with asyncio.timeout(timeout_s):
        local = (source_ip, 0) if source_ip is not None else None
        reader, writer = await asyncio.open_connection(ip, port, local_addr=local)
        try:
            writer.write(encode(words))
            return await _read(reader)
        finally:
            writer.transport.abort()


def encode(words: Sequence[str]) -> bytes:
    """A command as the protocol has it; bytes that are not UTF-8 are given as surrogates."""
    raw = [word.encode("utf-8", "surrogateescape") for word in words]
    head = b"*%d\r\n" % len(raw)
    return head + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in raw)


async def _read(reader: asyncio.StreamReader) -> Reply:
    line = await reader.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionResetError("the node closed the connection")
    kind, rest = line[:1], line[1:-2]
    match kind:
        case b"+":
            return rest.decode()
        case b"-":
            raise ReplyError(rest.decode(errors="replace"))
        case b":":
            return int(rest)
        case b"$":
            if int(rest) < 0:
                return None
            try:
                data = await reader.readexactly(int(rest) + 2)
            except asyncio.IncompleteReadError:
                raise ConnectionResetError("the node closed the connection") from None
            return data[:-2].decode("utf-8", "surrogateescape")
        case b"*":
            return [await _read(reader) for _ in range(int(rest))] if int(rest) >= 0 else None
        case _:
            raise ReplyError(f"not the store's protocol: {line!r}")


def as_text(reply: Reply) -> str:
    """A reply that has to be text."""
    if not isinstance(reply, str):
        raise ReplyError(f"expected text, got {reply!r}")
    return reply


def as_list(reply: Reply) -> list[Reply]:
    """A reply that has to be a list."""
    if not isinstance(reply, list):
        raise ReplyError(f"expected a list, got {reply!r}")
    return reply


def as_pairs(reply: Reply) -> dict[str, str]:
    """A flat list of names and values."""
    words = [as_text(word) for word in as_list(reply)]
    return dict(zip(words[::2], words[1::2], strict=True))


def as_info(reply: Reply) -> dict[str, str]:
    """What INFO and CLUSTER INFO answer."""
    pairs = (line.partition(":") for line in as_text(reply).splitlines())
    return {name: value for name, colon, value in pairs if colon}


class Subscription:
    """A connection that receives what a node publishes; see ``subscribe``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def next(self) -> tuple[str, str]:
        """The next channel and message.

        Raises:
            OSError: the connection broke.
        """
        while True:
            reply = as_list(await _read(self._reader))
            if reply[0] == "pmessage":
                _, _, channel, message = map(as_text, reply)
                return channel, message

    def close(self) -> None:
        """Ends the connection."""
        self._writer.transport.abort()


async def subscribe(
    ip: str, port: int, pattern: str, *, source_ip: str | None = None
) -> Subscription:
    """Subscribes to channels that match the pattern; returns once the node has confirmed it.

    Raises:
        OSError: no connection, or it broke.
        ReplyError: the answer is an error.
    """
    local = (source_ip, 0) if source_ip is not None else None
    reader, writer = await asyncio.open_connection(ip, port, local_addr=local)
    try:
        writer.write(encode(["PSUBSCRIBE", pattern]))
        await _read(reader)
    except BaseException:
        writer.transport.abort()
        raise
    return Subscription(reader, writer)
