"""Group commit and the replication barrier: requests that wait together share one send.

One connection, one pipeline under way. While it is, further requests gather; when its replies
are in, all that gathered goes out together. With an append-only file that is synced on every
write, a whole pipeline costs one sync; with a barrier, it costs one WAIT.

The barrier: behind the scripts goes WAIT, on the same connection and in the same send. WAIT speaks
of the last write of *this connection*: sent on another one, or in a second send that met another
master, it would vouch for something else. Every script writes, so that this holds for reads, errors
and repeats too: a "not found" from a master that has been deposed never leaves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import redis.exceptions

from ddq.config import MS_PER_SECOND
from ddq.errors import (
    DdqError,
    NotEnoughReplicas,
    Overloaded,
    StoreFull,
    StoreMalformed,
    StoreUnreachable,
    WriteOutcomeUnknown,
)
from ddq.store.connection import Command, Connection, NotSentError, Reply, ReplyLostError
from ddq.store.scripts import Script

PIPELINE_MAX_COUNT = 512
PIPELINE_MAX_BYTES = 8 * 1024 * 1024
WAIT_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Committed:
    """What a script returned, and how many replicas had confirmed it by then."""

    reply: Reply
    replicas_acked: int


@dataclass(eq=False, slots=True)
class _Waiting:
    script: Script
    keys: Sequence[str]
    args: Sequence[str | bytes | int]
    deadline_s: float
    future: asyncio.Future[Committed]
    size_bytes: int
    sent: bool = False

    def command(self, *, whole: bool) -> Command:
        if whole:
            return ("EVAL", self.script.source, len(self.keys), *self.keys, *self.args)
        return ("EVALSHA", self.script.sha1, len(self.keys), *self.keys, *self.args)


class GroupCommit:
    """Runs scripts on one store node, many in one send.

    Args:
        connection: to the node; owned from here on.
        timeout_s: longest wait for one pipeline.
        queue_max_count: requests that may wait; one more is refused with Overloaded.
        replicas_count: how many replicas must have a write before its reply leaves; 0 for no
            barrier.
    """

    def __init__(
        self,
        connection: Connection,
        timeout_s: float,
        queue_max_count: int,
        replicas_count: int = 0,
    ) -> None:
        self._connection = connection
        self._replicas_count = replicas_count
        self._timeout_s = timeout_s
        self._queue_max_count = queue_max_count
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[str | bytes | int],
        deadline_s: float,
    ) -> Committed:
        """Runs one script and returns its reply, once the barrier stands.

        Args:
            deadline_s: in the event loop's time; when it passes the outcome is unknown if the
                script was sent by then.

        Raises:
            Overloaded, StoreUnreachable, StoreFull, NotEnoughReplicas: it had no effect.
            WriteOutcomeUnknown: it may have had one.
            StoreMalformed: the script failed on what the store holds.
        """
        if len(self._queue) >= self._queue_max_count:
            raise Overloaded(f"{len(self._queue)} requests wait for the store already")
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.create_task(self._loop(), name="ddq group commit")
        loop = asyncio.get_running_loop()
        size_bytes = sum(len(arg) if isinstance(arg, bytes | str) else 8 for arg in args)
        waiting = _Waiting(script, keys, args, deadline_s, loop.create_future(), size_bytes)
        self._queue.append(waiting)
        self._arrived.set()
        try:
            async with asyncio.timeout_at(deadline_s):
                return await waiting.future
        except TimeoutError:
            if waiting.sent:
                raise WriteOutcomeUnknown(
                    f"the store did not answer {script.name} before the deadline"
                ) from None
            raise StoreUnreachable(
                f"{script.name} was not sent to the store before the deadline"
            ) from None

    async def close(self) -> None:
        """Ends the loop; what still waits is told that the store is unreachable."""
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)
        for waiting in self._queue:
            _fail(waiting, StoreUnreachable("the server is stopping"))
        self._queue.clear()
        await self._connection.close()

    async def _loop(self) -> None:
        while True:
            await self._arrived.wait()
            batch = self._gather()
            if not self._queue:
                self._arrived.clear()
            if batch:
                await self._send(batch)

    def _gather(self) -> list[_Waiting]:
        """What goes out next. A request whose caller has gone, or is out of time, does not."""
        now_s = asyncio.get_running_loop().time()
        batch: list[_Waiting] = []
        size_bytes = 0
        while self._queue and len(batch) < PIPELINE_MAX_COUNT:
            if batch and size_bytes + self._queue[0].size_bytes > PIPELINE_MAX_BYTES:
                break
            waiting = self._queue.popleft()
            if not waiting.future.done() and waiting.deadline_s > now_s:
                batch.append(waiting)
                size_bytes += waiting.size_bytes
        return batch

    async def _send(self, batch: list[_Waiting], *, whole: bool = False) -> None:
        """Sends a batch and tells each request what became of it."""
        try:
            replies, acked = await self._exchange(batch, whole=whole)
        except DdqError as error:
            for waiting in batch:
                _fail(waiting, type(error)(error.message))
            return
        except asyncio.CancelledError:
            for waiting in batch:
                _fail(waiting, WriteOutcomeUnknown("the server stopped before the store answered"))
            raise
        missing = []
        for waiting, reply in zip(batch, replies, strict=True):
            if isinstance(reply, redis.exceptions.NoScriptError) and not whole:
                missing.append(waiting)
            elif isinstance(reply, redis.exceptions.RedisError):
                _fail(waiting, store_error(waiting.script, reply))
            elif not waiting.future.done():
                waiting.future.set_result(Committed(reply, acked))
        if missing:
            # The script cache is empty after a restart or failover: send the text this time.
            await self._send(missing, whole=True)

    async def _exchange(self, batch: list[_Waiting], *, whole: bool) -> tuple[list[Reply], int]:
        """One send: the scripts' replies, and how many replicas have confirmed them.

        Raises:
            StoreUnreachable: nothing was sent.
            WriteOutcomeUnknown: the answer was lost, or the barrier came up short. That is not
                "failed": the write may reach the replicas yet, and survive.
        """
        now_s = asyncio.get_running_loop().time()
        timeout_s = min(self._timeout_s, max(waiting.deadline_s for waiting in batch) - now_s)
        timeout_s = max(timeout_s, 0.001)
        commands = [waiting.command(whole=whole) for waiting in batch]
        if self._replicas_count:
            # WAIT gives up before the send does, so that its answer is not lost with the
            # connection.
            wait_ms = max(1, round(timeout_s * WAIT_SHARE * MS_PER_SECOND))
            commands.append(("WAIT", self._replicas_count, wait_ms))
        for waiting in batch:
            waiting.sent = True
        try:
            replies = await self._connection.send(commands, timeout_s)
        except NotSentError as error:
            raise StoreUnreachable(f"no connection to the store: {error}") from error
        except ReplyLostError as error:
            raise WriteOutcomeUnknown(f"the store's answer was lost: {error}") from error
        if not self._replicas_count:
            return replies, 0
        acked = replies.pop()
        if not isinstance(acked, int) or acked < self._replicas_count:
            raise WriteOutcomeUnknown(
                f"{acked} of {self._replicas_count} replicas have confirmed the write"
            )
        return replies, acked


def _fail(waiting: _Waiting, error: DdqError) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(error)


_REFUSED = (
    "READONLY",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "BUSY",
    "CLUSTERDOWN",
    "NOAUTH",
    "NOPERM",
)


def store_error(script: Script, error: redis.exceptions.RedisError) -> DdqError:
    """What the store's own error about a script means for the request."""
    text = str(error)
    if isinstance(error, redis.exceptions.OutOfMemoryError) or "OOM" in text:
        return StoreFull("the store is at its maxmemory and takes no new tasks")
    if "NOREPLICAS" in text:
        return NotEnoughReplicas("the store has fewer replicas than it needs for a write")
    kind = type(error).__name__
    if any(word in text for word in _REFUSED) or isinstance(
        error, redis.exceptions.ReadOnlyError | redis.exceptions.BusyLoadingError
    ):
        return StoreUnreachable(f"the store refuses to run scripts: {text or kind}")
    return StoreMalformed(f"script {script.name} failed in the store: {text or kind}")
