"""Group commit and the replication barrier: requests that wait together share one send.

One connection, one pipeline under way. While it is, further requests gather; when its replies
are in, all that gathered goes out together. With an append-only file that is synced on every
write, a whole pipeline costs one sync; with a barrier, it costs one WAIT.

The barrier: behind the scripts go WAIT and ROLE, on the same connection and in the same send. WAIT
speaks of the last write of *this connection*: sent on another one, or in a second send that met
another master, it would vouch for something else. Every script writes, so that this holds for
reads, errors and repeats too: a "not found" from a master that has been deposed never leaves.

Whether what WAIT and ROLE say is enough is for ddq/store/barrier.py to decide. Replies for which it
is not enough yet are *held*: WAIT covers everything that its connection wrote before, so the next
barrier that is good lets them go too. Until then a heartbeat asks again. A held reply that its
caller's deadline or the end of the connection overtakes is an unknown outcome.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
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
from ddq.store.barrier import NO_ELECTIONS, Answer, Chain, ElectionAnswer, Policy
from ddq.store.connection import Command, Connection, NotSentError, Reply, ReplyLostError
from ddq.store.keys import heartbeat_key
from ddq.store.scripts import Script
from ddq.store.stamp import AtSend
from ddq.store.topology import tells_of_lost_role

log = logging.getLogger(__name__)

Argument = str | bytes | int | AtSend
PIPELINE_MAX_COUNT = 512
PIPELINE_MAX_BYTES = 8 * 1024 * 1024
QUEUE_MAX_BYTES = 128 * 1024 * 1024
NUMBER_BYTES = 8
BEATS_PER_WINDOW = 4
"""So that one heartbeat that is late does not break a chain."""
RETRY_S = 0.25
"""While replies are unconfirmed a barrier is sent again this often, and waits for all replicas for
no longer: with a long down-after, a share of its window would exceed most deadlines. The Sentinels
are asked again as often."""
TIMEOUT_SHARE = 0.5
"""Of a send's time-out, for its barrier: one that comes up short must not cost the connection."""
ELECTIONS_TIMEOUT_S = 2.0
"""For the Sentinels' answer; each of them has a second."""
SUSPENSION_MIN_S = 0.05
"""Less is the time between the reading of two clocks."""


def suspended_s() -> float:
    """For how long this machine has been suspended since it started, where the system tells."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class LaneClosedError(Exception):
    """The request was not sent, and will not be on this connection: take it elsewhere."""


class NotHereError(Exception):
    """The node did not run the script, since the keys are elsewhere, or on their way there.

    Attributes:
        reply: the node's error: MOVED, ASK, TRYAGAIN or CLUSTERDOWN.
    """

    def __init__(self, reply: redis.exceptions.RedisError) -> None:
        super().__init__(str(reply))
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Committed:
    """What a script returned, and how many replicas had confirmed it by then."""

    reply: Reply
    replicas_acked: int


@dataclass(eq=False, slots=True)
class _Waiting:
    script: Script
    keys: Sequence[str]
    args: Sequence[Argument]
    deadline_s: float
    future: asyncio.Future[Committed]
    size_bytes: int
    sent: bool = False

    def command(self, *, whole: bool) -> Command:
        args = [arg.value() if isinstance(arg, AtSend) else arg for arg in self.args]
        if whole:
            return ("EVAL", self.script.source, len(self.keys), *self.keys, *args)
        return ("EVALSHA", self.script.sha1, len(self.keys), *self.keys, *args)


class GroupCommit:
    """Runs scripts on one store node under one policy, many in one send.

    Args:
        connection: to the node; owned from here on.
        timeout_s: longest wait for one pipeline.
        queue_max_count: requests that may wait; one more is refused with Overloaded.
        queue_max_bytes: of the requests that wait and of the replies that are held; one more
            request is refused with Overloaded. One is accepted whatever its size.
        policy: what replies wait for; None: for the node alone.
        heartbeat: the script of a heartbeat; needed where the policy waits.
        keep_s: for so long after the last request heartbeats keep a chain unbroken.
        on_trouble: called when the node did not do what a master does.
        on_break: called when a chain that had settled breaks.
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
        ask_elections: Callable[[float], Awaitable[ElectionAnswer]] | None = None,
        trusted_s: float = float("-inf"),
        suspended_s: Callable[[], float] = suspended_s,
    ) -> None:
        self._connection = connection
        self._policy = policy if policy is not None and policy.waits else None
        self._heartbeat = heartbeat
        self._beat_key = ""
        self._keep_s = keep_s
        self._on_trouble = on_trouble
        self._on_break = on_break
        self._timeout_s = timeout_s
        self._queue_max_count = queue_max_count
        self._queue_max_bytes = queue_max_bytes
        self._queued_bytes = 0
        self._queue: deque[_Waiting] = deque()
        self._under_way: list[_Waiting] = []
        self._held: list[tuple[_Waiting, Reply]] = []
        self._chain: Chain | None = None
        self._trusted_s = trusted_s
        self._suspended_s = suspended_s
        self._slept_s = suspended_s()
        self._ask_elections = ask_elections or _no_elections
        self._question: asyncio.Task[None] | None = None
        self._ask_again_s = float("-inf")
        self._beat_s = self._retry_s = self._keep_until_s = float("-inf")
        self._arrived = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def held_count(self) -> int:
        """Replies that have come, and wait for a barrier that is good."""
        return len(self._held)

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
            LaneClosedError: it was not sent, and this connection is not used any more.
            NotHereError: another node of the Cluster has the keys.
        """
        if self._closed:
            raise LaneClosedError
        if len(self._queue) + len(self._held) >= self._queue_max_count:
            raise Overloaded(f"{len(self._queue)} requests wait for the store already")
        size_bytes = sum(_size_bytes(arg) for arg in args)
        if self._queued_bytes and self._queued_bytes + size_bytes > self._queue_max_bytes:
            raise Overloaded(
                f"requests and replies of {self._queued_bytes} bytes wait for the store already"
            )
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.create_task(self._loop(), name="ddq group commit")
            self._loop_task.add_done_callback(self._say_why_it_ended)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(script, keys, args, deadline_s, loop.create_future(), size_bytes)
        self._queue.append(waiting)
        self._queued_bytes += size_bytes
        self._arrived.set()
        try:
            async with asyncio.timeout_at(deadline_s):
                return await waiting.future
        except TimeoutError:
            if waiting.sent:
                raise WriteOutcomeUnknown(
                    f"the store did not confirm {script.name} before the deadline{self._why_held()}"
                ) from None
            raise StoreUnreachable(
                f"{script.name} was not sent to the store before the deadline"
            ) from None
        finally:
            self._queued_bytes -= waiting.size_bytes
            if not waiting.sent:
                # It stays in the queue until its turn, without what it would have sent.
                waiting.args, waiting.size_bytes = (), 0

    def _why_held(self) -> str:
        if self._chain is None or not self._chain.broken_because:
            return ""
        return f"; replies wait for every replica, since {self._chain.broken_because}"

    def _say_why_it_ended(self, loop_task: asyncio.Task[None]) -> None:
        """A mistake of ours must not leave callers to wait for their deadlines; the next call goes
        on with a new loop."""
        if loop_task.cancelled() or loop_task.exception() is None:
            return
        log.critical("the group commit has failed", exc_info=loop_task.exception())
        self._drop_chain()
        for waiting in [*self._under_way, *self._queue]:
            _fail(waiting, WriteOutcomeUnknown("internal error; see the server's log"))
        self._queue.clear()
        self._fail_held("internal error; see the server's log")

    async def close(self) -> None:
        """Ends the loop; what was not sent yet is told so with LaneClosedError."""
        self._closed = True
        if self._question is not None:
            self._question.cancel()
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)
        self._fail_held("the connection to the store was closed")
        for waiting in self._queue:
            if not waiting.future.done():
                waiting.future.set_exception(LaneClosedError())
        self._queue.clear()
        await self._connection.close()

    # The loop ------------------------------------------------------------------------------

    async def _loop(self) -> None:
        while True:
            await self._wake()
            batch = self._gather()
            if not self._queue:
                self._arrived.clear()
            if batch or self._beat_is_due():
                self._under_way = batch
                await self._send(batch)

    async def _wake(self) -> None:
        """Until a request arrives or a heartbeat is due."""
        self._held = [
            (waiting, reply) for waiting, reply in self._held if not waiting.future.done()
        ]
        if not self._beats():
            await self._arrived.wait()
            return
        try:
            async with asyncio.timeout_at(self._next_beat_s):
                await self._arrived.wait()
        except TimeoutError:
            pass

    @property
    def _next_beat_s(self) -> float:
        return self._retry_s if self._held else self._beat_s

    def _beats(self) -> bool:
        """Whether heartbeats are sent: to let held replies go, or to keep the chain unbroken."""
        if self._policy is None or self._chain is None:
            return False
        kept = self._policy.chained and self._beat_s < self._keep_until_s
        return kept or bool(self._held)

    def _beat_is_due(self) -> bool:
        return self._beats() and asyncio.get_running_loop().time() >= self._next_beat_s

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
        """Sends a batch, or a heartbeat, and tells each request what became of it."""
        if batch:
            self._keep_until_s = asyncio.get_running_loop().time() + self._keep_s
        try:
            replies, acked, good = await self._exchange(batch, whole=whole)
        except DdqError as error:
            self._fail_held(error.message)
            self._drop_chain()
            for waiting in batch:
                _fail(waiting, type(error)(error.message))
            self._on_trouble(error.message)
            return
        except asyncio.CancelledError:
            for waiting in batch:
                _fail(
                    waiting, WriteOutcomeUnknown("the connection closed before the store answered")
                )
            raise
        missing = []
        for waiting, reply in zip(batch, replies, strict=True):
            if isinstance(reply, redis.exceptions.NoScriptError) and not whole:
                missing.append(waiting)
            elif isinstance(reply, redis.exceptions.RedisError):
                self._refuse(waiting, reply)
            else:
                if not good and not waiting.future.done():
                    reply_bytes = _size_bytes(reply)
                    waiting.size_bytes += reply_bytes
                    self._queued_bytes += reply_bytes
                self._held.append((waiting, reply))
                # Slots move: a heartbeat for one that is gone would keep this lane from settling.
                self._beat_key = heartbeat_key(waiting.keys[0])
        if good:
            self._let_go(acked)
        if missing:
            # The script cache is empty after a restart or failover: send the text this time.
            await self._send(missing, whole=True)

    def _refuse(self, waiting: _Waiting, error: redis.exceptions.RedisError) -> None:
        if isinstance(error, _NOT_HERE):
            _fail(waiting, NotHereError(error))
            return
        _fail(waiting, store_error(waiting.script, error))
        if tells_of_lost_role(error):
            self._on_trouble(str(error))

    def _refuse_what_did_not_run(self, batch: list[_Waiting], replies: Sequence[Reply]) -> None:
        """Of a send to who is no master any more, those that it refused to run are no riddle.

        A coordinated failover pauses writes, and refuses them once it is over: were their outcome
        unknown, a cancel that is repeated and then comes too late could not be told so.
        """
        for waiting, reply in zip(batch, replies, strict=False):
            if isinstance(reply, redis.exceptions.NoScriptError):
                _fail(waiting, StoreUnreachable("the node is no master any more"))
            elif isinstance(reply, redis.exceptions.RedisError):
                error = store_error(waiting.script, reply)
                if isinstance(reply, _NOT_HERE) or isinstance(error, StoreUnreachable):
                    self._refuse(waiting, reply)

    def _let_go(self, acked: int) -> None:
        for waiting, reply in self._held:
            if not waiting.future.done():
                waiting.future.set_result(Committed(reply, acked))
        self._held.clear()

    async def _exchange(
        self, batch: list[_Waiting], *, whole: bool
    ) -> tuple[list[Reply], int, bool]:
        """One send: the scripts' replies, the replicas that have confirmed them, and whether that
        lets replies go.

        Raises:
            StoreUnreachable: nothing was sent.
            WriteOutcomeUnknown: the answer was lost, or came from who is no master any more. That
                is not "failed": the write may have reached the replicas, and survive.
        """
        loop = asyncio.get_running_loop()
        commands = [waiting.command(whole=whole) for waiting in batch]
        sent_s = loop.time()
        commands += self._barrier(sent_s, alone=not batch)
        for waiting in batch:
            waiting.sent = True
        try:
            replies = await self._connection.send(commands, self._timeout_s)
        except NotSentError as error:
            for waiting in batch:
                waiting.sent = False
            raise StoreUnreachable(f"no connection to the store: {error}") from error
        except ReplyLostError as error:
            raise WriteOutcomeUnknown(f"the store's answer was lost: {error}") from error
        if self._policy is None:
            return replies, 0, True
        try:
            answer = _read_barrier(replies[-2:], sent_s, loop.time(), fsync=self._policy.fsync)
        except WriteOutcomeUnknown:
            self._refuse_what_did_not_run(batch, replies)
            raise
        self._notice_suspension()
        if self._chain is None:
            self._chain = Chain(self._policy, self._trusted_s)
        if all(isinstance(reply, redis.exceptions.RedisError) for reply in replies[:-2]):
            # Nothing was written, so WAIT answered for an older write, from memory: it does not
            # show that anybody still follows this node. Ask again, with a write; at once, unless
            # that was the write: a store without enough replicas refuses it as fast as it is asked.
            if batch:
                self._beat_s = self._retry_s = sent_s
            return replies[: len(batch)], 0, False
        had_settled = not self._chain.broken_because
        good = self._chain.judge(answer)
        if had_settled and self._chain.broken_because:
            self._on_break()
        now_s = loop.time()
        if (
            self._question is None
            and now_s >= self._ask_again_s
            and self._chain.wants_elections(now_s)
        ):
            self._ask_again_s = now_s + RETRY_S
            self._question = asyncio.create_task(
                self._ask(self._chain), name="ddq question about elections"
            )
        return replies[: len(batch)], answer.acked_count, good

    async def _ask(self, chain: Chain) -> None:
        """Puts the Sentinels' answer to the chain, and has a heartbeat follow at once."""
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        try:
            answer = await self._ask_elections(asked_s + ELECTIONS_TIMEOUT_S)
        except DdqError as error:
            answer = ElectionAnswer(error.message, complete=False)
        finally:
            self._question = None
        chain.hear(asked_s, answer)
        if not answer.pending and self._held:
            self._retry_s = loop.time()
            self._arrived.set()

    def _notice_suspension(self) -> None:
        """The event loop's clock stands still while the machine is suspended: the master may have
        been replaced meanwhile, and the chain would look unbroken."""
        slept_s = self._suspended_s()
        lost_s, self._slept_s = slept_s - self._slept_s, slept_s
        if lost_s > SUSPENSION_MIN_S:
            log.info("this machine was suspended for %.1f s: QUORUM settles again", lost_s)
            self._drop_chain()
            self._trusted_s -= lost_s

    def _drop_chain(self) -> None:
        """The connection is over; the next one begins with what this one knew of the node."""
        if self._chain is not None:
            self._trusted_s = self._chain.trusted_s
        self._chain = None

    def _barrier(self, now_s: float, *, alone: bool) -> list[Command]:
        """WAIT and ROLE; before them a heartbeat's write, if no script goes before them."""
        policy = self._policy
        if policy is None:
            return []
        window_s = policy.timing.window_s
        share_s = window_s / BEATS_PER_WINDOW
        self._beat_s, self._retry_s = now_s + share_s, now_s + min(share_s, RETRY_S)
        nodes = policy.nodes
        wants_all = self._chain is None or self._chain.wants_all(now_s)
        replicas = nodes.replicas_count if wants_all else nodes.majority_replicas_count
        # A majority is no use once the window is over. Who waits for all must come back in time
        # to go on with a majority, if a replica is away.
        wait_s = min(share_s, RETRY_S) if wants_all else window_s
        wait_s = min(wait_s, TIMEOUT_SHARE * self._timeout_s)
        wait_ms = max(1, round(wait_s * MS_PER_SECOND))
        commands: list[Command] = []
        if alone:
            assert self._heartbeat is not None
            commands.append(("EVAL", self._heartbeat.source, 1, self._beat_key))
        if policy.fsync:
            commands.append(("WAITAOF", 1, replicas, wait_ms))
        else:
            commands.append(("WAIT", replicas, wait_ms))
        commands.append(("ROLE",))
        return commands

    def _fail_held(self, why: str) -> None:
        for waiting, _ in self._held:
            _fail(waiting, WriteOutcomeUnknown(f"the write was not confirmed: {why}"))
        self._held.clear()


async def _no_elections(_deadline_s: float) -> ElectionAnswer:
    return NO_ELECTIONS


def _read_barrier(
    replies: Sequence[Reply], sent_s: float, answered_s: float, *, fsync: bool
) -> Answer:
    """What WAIT or WAITAOF and ROLE said.

    Raises:
        WriteOutcomeUnknown: the node is no master any more, or says nothing that can be read.
    """
    acked, role = replies
    if fsync and isinstance(acked, list):
        local, acked = acked
        # The master's own file counts as much as a replica's: without it nothing is confirmed.
        acked = acked if local else -1
    if not isinstance(acked, int) or not isinstance(role, list) or role[0] != b"master":
        raise WriteOutcomeUnknown(f"the node is no master any more: {acked!r:.80}")
    attached = frozenset((host.decode(), int(port)) for host, port, _ in role[2])
    return Answer(sent_s, answered_s, acked, attached)


def _size_bytes(value: object) -> int:
    """About what an argument or a reply takes in memory."""
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, list):
        return sum(map(_size_bytes, value))
    return NUMBER_BYTES


def _fail(waiting: _Waiting, error: DdqError | NotHereError) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(error)


_NOT_HERE = (
    redis.exceptions.MovedError,
    redis.exceptions.AskError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
)
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
