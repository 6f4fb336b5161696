"""Group commit: requests that wait together share one send.

One connection, one pipeline under way. While it is, further requests gather; when its replies
are in, all that gathered goes out together. With an append-only file that is synced on every
write, a whole pipeline costs one sync; with a barrier (barrier_sender.py), it costs one WAIT.

Replies for which a barrier is not enough yet stay *unconfirmed*: WAIT covers everything that its
connection wrote before, so the next barrier that is good releases them too. An unconfirmed reply
that its caller's deadline or the end of the connection overtakes is an unknown outcome.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import redis.exceptions

from ddq.errors import DdqError, Overloaded, StoreUnreachable, WriteOutcomeUnknown
from ddq.store.barrier import ElectionAnswer, Policy
from ddq.store.barrier_sender import (
    BarrierSender,
    DemotedError,
    Sent,
    no_elections,
    suspended_s,
)
from ddq.store.connection import Connection, Reply
from ddq.store.pending import Argument, Committed, PendingRequest, UnconfirmedReplies, size_bytes
from ddq.store.script_errors import NOT_HERE, NotHereError, store_error
from ddq.store.scripts import Script
from ddq.store.topology import is_lost_role

log = logging.getLogger(__name__)

PIPELINE_MAX_COUNT = 512
PIPELINE_MAX_BYTES = 8 * 1024 * 1024
QUEUE_MAX_BYTES = 128 * 1024 * 1024


class ConnectionRetiredError(Exception):
    """The request was not sent, and will not be on this connection: take it elsewhere."""


class GroupCommit:
    """Runs scripts on one store node under one policy, many in one send.

    Args:
        connection: to the node; owned from here on.
        timeout_s: longest wait for one pipeline.
        queue_max_count: requests that may wait; one more is refused with Overloaded.
        queue_max_bytes: of the requests that wait and of the unconfirmed replies; one more request
            is refused with Overloaded. One is accepted whatever its size.
        policy: what replies wait for; None: for the node alone.
        heartbeat: the script of a heartbeat; needed where the policy waits.
        keep_s: for so long after the last request heartbeats keep a chain unbroken.
        on_trouble: called when the node did not do what a master does.
        on_break: called when a chain that had settled breaks.
        on_held: called for each reply that had to wait for a later barrier than that of its own
            send, with how long, in s.
        ask_elections: asks the Sentinels, until a deadline in the event loop's time, whether an
            election that replaces the node may be under way; None: the node is never replaced.
        trusted_s: see Chain.
        suspended_s: for how long this machine has been suspended since it started.
    """

    def __init__(
        self,
        connection: Connection,
        timeout_s: float,
        queue_max_count: int,
        policy: Policy | None = None,
        *,
        queue_max_bytes: int = QUEUE_MAX_BYTES,
        heartbeat: Script | None = None,
        keep_s: float = 0.0,
        on_trouble: Callable[[str], None] = lambda _: None,
        on_break: Callable[[], None] = lambda: None,
        on_held: Callable[[float], None] = lambda _: None,
        ask_elections: Callable[[float], Awaitable[ElectionAnswer]] | None = None,
        trusted_s: float = float("-inf"),
        suspended_s: Callable[[], float] = suspended_s,
    ) -> None:
        self._sender = BarrierSender(
            connection,
            timeout_s,
            policy if policy is not None and policy.waits else None,
            heartbeat=heartbeat,
            keep_s=keep_s,
            on_break=on_break,
            on_no_election=self._confirm_soon,
            ask_elections=ask_elections or no_elections,
            trusted_s=trusted_s,
            suspended_s=suspended_s,
        )
        self._on_trouble = on_trouble
        self._queue_max_count = queue_max_count
        self._queue_max_bytes = queue_max_bytes
        self._queued_bytes = 0
        self._queue: deque[PendingRequest] = deque()
        self._under_way: list[PendingRequest] = []
        self._unconfirmed = UnconfirmedReplies(on_held)
        self._arrived = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def unconfirmed_count(self) -> int:
        """Replies that have arrived, and wait for a barrier that is good."""
        return len(self._unconfirmed)

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        deadline_s: float,
    ) -> Committed:
        """Runs one script and returns its reply, once the barrier stands.

        Args:
            args: an AtSend among them is read at each send.
            deadline_s: in the event loop's time; when it passes the outcome is unknown if the
                script was sent by then.

        Raises:
            Overloaded, StoreUnreachable, StoreFull, NotEnoughReplicas: it had no effect.
            WriteOutcomeUnknown: it may have had one.
            StoreMalformed: the script failed on what the store holds.
            ConnectionRetiredError: it was not sent, and this connection is no longer used.
            NotHereError: another node of the Cluster has the keys.
        """
        if self._closed:
            raise ConnectionRetiredError
        if len(self._queue) + len(self._unconfirmed) >= self._queue_max_count:
            raise Overloaded(f"{len(self._queue)} requests wait for the store already")
        args_bytes = sum(size_bytes(arg) for arg in args)
        if self._queued_bytes and self._queued_bytes + args_bytes > self._queue_max_bytes:
            raise Overloaded(
                f"requests and replies of {self._queued_bytes} bytes wait for the store already"
            )
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.create_task(self._loop(), name="ddq group commit")
            self._loop_task.add_done_callback(self._on_loop_end)
        loop = asyncio.get_running_loop()
        request = PendingRequest(script, keys, args, deadline_s, loop.create_future(), args_bytes)
        self._queue.append(request)
        self._queued_bytes += args_bytes
        self._arrived.set()
        try:
            async with asyncio.timeout_at(deadline_s):
                return await request.future
        except TimeoutError:
            if request.sent:
                broken = self._sender.broken_because
                reason = f"; replies wait for every replica, since {broken}" if broken else ""
                raise WriteOutcomeUnknown(
                    f"the store did not confirm {script.name} before the deadline{reason}"
                ) from None
            raise StoreUnreachable(
                f"{script.name} was not sent to the store before the deadline"
            ) from None
        finally:
            self._queued_bytes -= request.size_bytes
            if not request.sent:
                # It stays in the queue until its turn, without what it would have sent.
                request.args, request.size_bytes = (), 0

    def _on_loop_end(self, loop_task: asyncio.Task[None]) -> None:
        """An internal error must not leave callers to wait for their deadlines; the next call
        starts a new loop."""
        if loop_task.cancelled() or loop_task.exception() is None:
            return
        log.critical("the group commit has failed", exc_info=loop_task.exception())
        self._sender.drop_chain()
        for request in [*self._under_way, *self._queue]:
            request.fail(WriteOutcomeUnknown("internal error; see the server's log"))
        self._queue.clear()
        self._unconfirmed.fail("internal error; see the server's log")

    async def close(self) -> None:
        """Ends the loop; requests that were not sent yet end with ConnectionRetiredError."""
        self._closed = True
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)
        self._unconfirmed.fail("the connection to the store was closed")
        for request in self._queue:
            if not request.is_answered:
                request.future.set_exception(ConnectionRetiredError())
        self._queue.clear()
        await self._sender.close()

    # The loop ------------------------------------------------------------------------------

    async def _loop(self) -> None:
        while True:
            self._unconfirmed.drop_abandoned()
            await self._wait()
            batch = self._gather()
            if not self._queue:
                self._arrived.clear()
            if batch or self._heartbeat_is_due():
                self._under_way = batch
                await self._send(batch)

    async def _wait(self) -> None:
        """Until a request arrives or a heartbeat is due."""
        beat_s = self._next_beat_s()
        if beat_s is None:
            await self._arrived.wait()
            return
        try:
            async with asyncio.timeout_at(beat_s):
                await self._arrived.wait()
        except TimeoutError:
            pass

    def _next_beat_s(self) -> float | None:
        return self._sender.next_beat_s(unconfirmed=bool(self._unconfirmed))

    def _heartbeat_is_due(self) -> bool:
        beat_s = self._next_beat_s()
        return beat_s is not None and asyncio.get_running_loop().time() >= beat_s

    def _confirm_soon(self) -> None:
        """The next barrier may be good: a heartbeat follows at once, if replies wait for it."""
        if self._unconfirmed:
            self._sender.beat_now()
            self._arrived.set()

    def _gather(self) -> list[PendingRequest]:
        """The next batch. A request whose caller has gone, or is out of time, is left out."""
        now_s = asyncio.get_running_loop().time()
        batch: list[PendingRequest] = []
        batch_bytes = 0
        while self._queue and len(batch) < PIPELINE_MAX_COUNT:
            if batch and batch_bytes + self._queue[0].size_bytes > PIPELINE_MAX_BYTES:
                break
            request = self._queue.popleft()
            if not request.is_answered and request.deadline_s > now_s:
                batch.append(request)
                batch_bytes += request.size_bytes
        return batch

    async def _send(self, batch: list[PendingRequest], *, with_source: bool = False) -> None:
        """Sends a batch, or a heartbeat, and settles each request."""
        try:
            sent = await self._sender.send(batch, with_source=with_source)
        except DdqError as error:
            self._fail(batch, error)
            return
        except DemotedError as error:
            self._refuse_unrun(batch, error.replies)
            self._fail(batch, WriteOutcomeUnknown(str(error)))
            return
        except asyncio.CancelledError:
            for request in batch:
                request.fail(WriteOutcomeUnknown("the connection closed before the store answered"))
            raise
        unknown = self._settle(batch, sent, with_source=with_source)
        if unknown:
            # The script cache is empty after a restart or failover: send the text this time.
            await self._send(unknown, with_source=True)

    def _settle(
        self, batch: Sequence[PendingRequest], sent: Sent, *, with_source: bool
    ) -> list[PendingRequest]:
        """Answers or refuses each request, or keeps its reply; returns those of unknown scripts."""
        unknown = []
        for request, reply in zip(batch, sent.replies, strict=True):
            if isinstance(reply, redis.exceptions.NoScriptError) and not with_source:
                unknown.append(request)
            elif isinstance(reply, redis.exceptions.RedisError):
                self._refuse(request, reply)
            else:
                if not sent.confirmed and not request.is_answered:
                    reply_bytes = size_bytes(reply)
                    request.size_bytes += reply_bytes
                    self._queued_bytes += reply_bytes
                    request.held_from_s = asyncio.get_running_loop().time()
                self._unconfirmed.add(request, reply)
        if sent.confirmed:
            self._unconfirmed.release(sent.replicas_acked, asyncio.get_running_loop().time())
        return unknown

    def _fail(self, batch: Sequence[PendingRequest], error: DdqError) -> None:
        """A send failed as a whole."""
        self._unconfirmed.fail(error.message)
        for request in batch:
            request.fail(type(error)(error.message))
        self._on_trouble(error.message)

    def _refuse(self, request: PendingRequest, error: redis.exceptions.RedisError) -> None:
        if isinstance(error, NOT_HERE):
            request.fail(NotHereError(error))
            return
        request.fail(store_error(request.script, error))
        if is_lost_role(error):
            self._on_trouble(str(error))

    def _refuse_unrun(self, batch: Sequence[PendingRequest], replies: Sequence[Reply]) -> None:
        """Refuses the requests of a send to a demoted node that this node did not run.

        A coordinated failover pauses writes, and refuses them once it is over. With an unknown
        outcome instead, a repeated cancel that then comes too late would not get a definite answer.
        """
        for request, reply in zip(batch, replies, strict=False):
            if isinstance(reply, redis.exceptions.NoScriptError):
                request.fail(StoreUnreachable("the node was demoted"))
            elif isinstance(reply, redis.exceptions.RedisError):
                error = store_error(request.script, reply)
                if isinstance(reply, NOT_HERE) or isinstance(error, StoreUnreachable):
                    self._refuse(request, reply)
