"""``ddq`` with points at which it can be made to die: the file of them, and the arguments of ddq.

Around each send of a script to the store there are four points. A process that is killed from
outside is hit in one of them by chance only. When the file names a point, the next send that gets
there ends the process at once, as SIGKILL does, and the file is removed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import NoReturn
from unittest import mock

from redis.asyncio.connection import AbstractConnection

from ddq.cli import main
from ddq.store.connection import Command, RedisConnection, Reply


class Failpoint(StrEnum):
    """A moment of a send."""

    BEFORE_SEND = "before-send"
    AFTER_SEND = "after-send"
    AFTER_FIRST_REPLY = "after-first-reply"
    AFTER_REPLIES = "after-replies"


_SCRIPTS = frozenset({"EVALSHA", "EVAL"})
_send = RedisConnection.send
_read = RedisConnection._read  # noqa: SLF001 - the points are inside of it


def die(failpoint: Failpoint) -> NoReturn:
    """Ends this process, and says so in its log only."""
    print(f"FAILPOINT {failpoint}", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL returned")


def failing(file: Path) -> AbstractContextManager[object]:
    """Connections that look at the file before each send of a script."""

    async def send(
        self: RedisConnection, commands: Sequence[Command], timeout_s: float
    ) -> list[Reply]:
        failpoint = _named(file) if any(command[0] in _SCRIPTS for command in commands) else None
        if failpoint is None:
            return await _send(self, commands, timeout_s)
        if failpoint is Failpoint.BEFORE_SEND:
            die(failpoint)
        if failpoint is not Failpoint.AFTER_REPLIES:
            with mock.patch.object(self, "_read", _dying_read(failpoint)):
                await _send(self, commands, timeout_s)
        else:
            await _send(self, commands, timeout_s)
        die(failpoint)

    return mock.patch.object(RedisConnection, "send", send)


def _dying_read(failpoint: Failpoint) -> Callable[[AbstractConnection], Awaitable[Reply]]:
    answered = 0

    async def read(connection: AbstractConnection) -> Reply:
        nonlocal answered
        if failpoint is Failpoint.AFTER_SEND or answered:
            die(failpoint)
        answered += 1
        return await _read(connection)

    return read


def _named(file: Path) -> Failpoint | None:
    try:
        text = file.read_text()
        file.unlink()
    except FileNotFoundError:
        return None
    return Failpoint(text)


if __name__ == "__main__":
    with failing(Path(sys.argv[1])):
        sys.exit(main(sys.argv[2:]))
