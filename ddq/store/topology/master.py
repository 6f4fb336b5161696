"""A connection that speaks to masters only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import redis.exceptions

from ddq.store.connection import Command, Connection, NotSentError, Reply, ReplyLostError
from ddq.store.topology.node import Node

# A connection to a host that has vanished opens never; the first answer of one that is well takes
# milliseconds, and the time of the pipeline that it works at.
OPEN_TIMEOUT_S = 2.0


class NotMasterError(NotSentError):
    """The node says that it is not a master."""


async def ask_role(inner: Connection, node: Node, timeout_s: float) -> list[Reply]:
    """The ROLE of a node that is a master.

    Raises:
        NotMasterError: it is none.
        NotSentError: it did not answer.
    """
    try:
        (role,) = await inner.send([("ROLE",)], timeout_s)
    except ReplyLostError as error:
        raise NotSentError(f"{node} did not say its role: {error}") from error
    except NotSentError as error:
        raise NotSentError(f"{node}: {error}") from error
    if isinstance(role, redis.exceptions.ResponseError):
        raise NotSentError(f"{node} does not say its role: {role}")
    if not isinstance(role, list) or not role or role[0] != b"master":
        found = role[0].decode(errors="replace") if isinstance(role, list) and role else role
        found = "replica" if found == "slave" else found
        raise NotMasterError(f"{node} is a {found} now, and no master")
    return role


class MasterConnection:
    """A Connection whose first question, each time it opens, is for the node's role.

    Discovery may be behind: Sentinel names a master up to seconds after it was deposed. ``inner``
    may open itself only in a send that follows its making, its closing, or a failed send.
    """

    def __init__(self, inner: Connection, node: Node) -> None:
        self._inner = inner
        self._node = node
        self._checked = False
        self._closings = 0

    async def send(self, commands: Sequence[Command], timeout_s: float) -> list[Reply]:
        """See Connection.send."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + timeout_s
        try:
            if not self._checked:
                closings = self._closings
                await ask_role(self._inner, self._node, min(timeout_s, OPEN_TIMEOUT_S))
                if closings != self._closings:
                    raise NotSentError(f"the connection to {self._node} was closed")
                self._checked = True
            left_s = end_s - loop.time()
            if left_s <= 0:
                raise NotSentError(f"{self._node} took too long to say its role")
            return await self._inner.send(commands, left_s)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See Connection.close."""
        self._checked = False
        self._closings += 1
        await self._inner.close()
