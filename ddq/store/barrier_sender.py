"""Sends batches of scripts on one connection, each followed by its replication barrier.

Behind the scripts go WAIT and ROLE, on the same connection and in the same send. WAIT covers the
last write of *this connection*: sent on another one, or in a second send that met another master,
it would guarantee something else. Every script writes, so that this holds for reads, errors and
repeats too: a "not found" from a master that has been demoted never leaves.

Whether what WAIT and ROLE say is enough is decided in barrier.py. While it is not, or to keep the
chain of barriers unbroken, a heartbeat asks again with a write of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import redis.exceptions

from ddq.config import MS_PER_SECOND
from ddq.errors import DdqError, StoreUnreachable, WriteOutcomeUnknown
from ddq.store.barrier import NO_ELECTIONS, Answer, Chain, ElectionAnswer, Policy
from ddq.store.connection import Command, Connection, NotSentError, Reply, ReplyLostError
from ddq.store.keys import heartbeat_key
from ddq.store.pending import PendingRequest
from ddq.store.scripts import Script

log = logging.getLogger(__name__)

BEATS_PER_WINDOW = 4
"""So that one heartbeat that is late does not break a chain."""
RETRY_S = 0.25
"""While replies are unconfirmed a barrier is sent again this often, and waits for all replicas for
no longer: with a long down-after, a share of its window would exceed most deadlines. The Sentinels
are asked again as often."""
FSYNC_WAIT_S = 1.5
"""The wait for the disks of all replicas, where no chain has to be kept: with appendfsync everysec
each node synchronizes once a second, at a time of its own, and within less the three may never be
found synchronized together."""
FSYNC_FIRST_STEP_MS = 2
FSYNC_STEP_FACTOR = 4
TIMEOUT_SHARE = 0.5
"""The share of a send's time-out for its barrier: one that comes up short must not cost the
connection."""
ELECTIONS_TIMEOUT_S = 2.0
"""For the Sentinels' answer; each of them has a second."""
SUSPENSION_MIN_S = 0.05
"""Less is the time between the reading of two clocks."""


def suspended_s() -> float:
    """For how long this machine has been suspended since it started, where the system tells."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


async def no_elections(_deadline_s: float) -> ElectionAnswer:
    """The answer where no Sentinel replaces the node."""
    return NO_ELECTIONS


class DemotedError(Exception):
    """The node that answered was demoted; what it ran may still survive.

    Attributes:
        replies: of the scripts; an error in place of each one that it refused to run.
    """

    def __init__(self, message: str, replies: Sequence[Reply]) -> None:
        super().__init__(message)
        self.replies = replies


@dataclass(frozen=True, slots=True)
class Sent:
    """The answer to one send.

    Attributes:
        replies: of the scripts, in order; a redis ResponseError in place of one that failed.
        replicas_acked: replicas that have confirmed every write of the connection up to here.
        confirmed: whether that is enough to release replies.
    """

    replies: list[Reply]
    replicas_acked: int
    confirmed: bool


class BarrierSender:
    """One connection to a store node, and the chain of its barriers.

    Args:
        connection: owned from here on.
        timeout_s: longest wait for one send.
        policy: what replies wait for; None: for the node alone.
        heartbeat: the script of a heartbeat; needed with a policy.
        keep_s: for so long after the last request heartbeats keep a chain unbroken.
        on_break: called when a chain that had settled breaks.
        on_no_election: called when the Sentinels have answered that no election is pending.
        ask_elections: asks the Sentinels, until a deadline in the event loop's time, whether an
            election that replaces the node may be under way.
        trusted_s: see Chain.
        suspended_s: for how long this machine has been suspended since it started.
    """

    def __init__(
        self,
        connection: Connection,
        timeout_s: float,
        policy: Policy | None,
        *,
        heartbeat: Script | None,
        keep_s: float,
        on_break: Callable[[], None],
        on_no_election: Callable[[], None],
        ask_elections: Callable[[float], Awaitable[ElectionAnswer]],
        trusted_s: float,
        suspended_s: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._policy = policy
        self._heartbeat = heartbeat
        self._heartbeat_key = ""
        self._keep_s = keep_s
        self._on_break = on_break
        self._on_no_election = on_no_election
        self._chain: Chain | None = None
        self._trusted_s = trusted_s
        self._suspended_s = suspended_s
        self._suspended_before_s = suspended_s()
        self._ask_elections = ask_elections
        self._question: asyncio.Task[None] | None = None
        self._ask_again_s = float("-inf")
        self._beat_s = self._retry_s = self._keep_until_s = float("-inf")

    @property
    def broken_because(self) -> str:
        """Why replies wait for every replica; empty where they do not."""
        return self._chain.broken_because if self._chain is not None else ""

    async def close(self) -> None:
        """Closes the connection, and asks the Sentinels nothing more."""
        if self._question is not None:
            self._question.cancel()
        await self._connection.close()

    # Heartbeats ----------------------------------------------------------------------------

    def next_beat_s(self, *, unconfirmed: bool) -> float | None:
        """When the next heartbeat is due; None if none is.

        Args:
            unconfirmed: whether replies wait for a barrier. A heartbeat follows sooner then.
        """
        if self._policy is None or self._chain is None:
            return None
        if unconfirmed:
            return self._retry_s
        is_kept = self._policy.chained and self._beat_s < self._keep_until_s
        return self._beat_s if is_kept else None

    def beat_now(self) -> None:
        """The next heartbeat for unconfirmed replies is due at once."""
        self._retry_s = asyncio.get_running_loop().time()

    # Sending -------------------------------------------------------------------------------

    async def send(self, batch: Sequence[PendingRequest], *, with_source: bool = False) -> Sent:
        """Sends a batch and its barrier; a heartbeat if the batch is empty.

        Raises:
            StoreUnreachable: nothing was sent.
            WriteOutcomeUnknown: the answer was lost.
            DemotedError: it came from a node that was demoted. That is not "failed":
                the write may have reached the replicas, and survive.
        """
        if batch:
            self._keep_until_s = asyncio.get_running_loop().time() + self._keep_s
        try:
            return await self._exchange(batch, with_source=with_source)
        except (DdqError, DemotedError):
            self.drop_chain()
            raise

    async def _exchange(self, batch: Sequence[PendingRequest], *, with_source: bool) -> Sent:
        loop = asyncio.get_running_loop()
        commands = [request.command(with_source=with_source) for request in batch]
        sent_s = loop.time()
        commands += self._barrier(sent_s, alone=not batch)
        for request in batch:
            request.sent = True
        try:
            replies = await self._connection.send(commands, self._timeout_s)
        except NotSentError as error:
            for request in batch:
                request.sent = False
            raise StoreUnreachable(f"no connection to the store: {error}") from error
        except ReplyLostError as error:
            raise WriteOutcomeUnknown(f"the store's answer was lost: {error}") from error
        if self._policy is None:
            return Sent(replies, 0, confirmed=True)
        own = replies[: len(batch)]
        # Without a batch the heartbeat's write is the one that the barrier is about.
        written = replies[: max(1, len(batch))]
        answer = _read_barrier(replies, own, sent_s, loop.time(), fsync=self._policy.fsync)
        self._notice_suspension()
        for request, reply in zip(batch, own, strict=True):
            if not isinstance(reply, redis.exceptions.RedisError):
                # Slots move: a heartbeat for one that is gone would keep the chain from settling.
                self._heartbeat_key = heartbeat_key(request.keys[0])
        if self._chain is None:
            self._chain = Chain(self._policy, self._trusted_s)
        if all(isinstance(reply, redis.exceptions.RedisError) for reply in written):
            # Nothing was written, so WAIT answered for an older write, from memory: it does not
            # show that a replica still follows this node. Ask again, with a write; at once, unless
            # that was the write: a store without enough replicas refuses it as fast as it is asked.
            if batch:
                self._beat_s = self._retry_s = sent_s
            return Sent(own, 0, confirmed=False)
        return Sent(own, answer.acked_count, confirmed=self._judge(self._chain, answer))

    def _judge(self, chain: Chain, answer: Answer) -> bool:
        """Whether the barrier releases replies; asks the Sentinels if the chain needs that."""
        had_settled = not chain.broken_because
        confirmed = chain.judge(answer)
        if had_settled and chain.broken_because:
            self._on_break()
        now_s = asyncio.get_running_loop().time()
        if self._question is None and now_s >= self._ask_again_s and chain.wants_elections(now_s):
            self._ask_again_s = now_s + RETRY_S
            self._question = asyncio.create_task(
                self._ask(chain), name="ddq question about elections"
            )
        return confirmed

    async def _ask(self, chain: Chain) -> None:
        """Takes the Sentinels' answer to the chain."""
        asked_s = asyncio.get_running_loop().time()
        try:
            answer = await self._ask_elections(asked_s + ELECTIONS_TIMEOUT_S)
        except DdqError as error:
            answer = ElectionAnswer(error.message, complete=False)
        finally:
            self._question = None
        chain.hear(asked_s, answer)
        if not answer.pending:
            self._on_no_election()

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
        # A majority does not count once the window is over. A barrier for all replicas must come
        # back in time to continue with a majority, if a replica is away.
        wait_s = min(share_s, RETRY_S) if wants_all else window_s
        if policy.fsync and not policy.chained:
            wait_s = FSYNC_WAIT_S
        wait_s = min(wait_s, TIMEOUT_SHARE * self._timeout_s)
        wait_ms = max(1, round(wait_s * MS_PER_SECOND))
        commands: list[Command] = []
        if alone:
            assert self._heartbeat is not None
            commands.append(("EVAL", self._heartbeat.source, 1, self._heartbeat_key))
        if policy.fsync:
            commands += [("WAITAOF", 1, replicas, step_ms) for step_ms in fsync_steps_ms(wait_ms)]
        else:
            commands.append(("WAIT", replicas, wait_ms))
        commands.append(("ROLE",))
        return commands

    # The chain -----------------------------------------------------------------------------

    def drop_chain(self) -> None:
        """The connection is over; the next one begins with what this one knew of the node."""
        if self._chain is not None:
            self._trusted_s = self._chain.trusted_s
        self._chain = None

    def _notice_suspension(self) -> None:
        """The event loop's clock stands still while the machine is suspended: the master may have
        been replaced meanwhile, and the chain would look unbroken."""
        now_s = self._suspended_s()
        lost_s, self._suspended_before_s = now_s - self._suspended_before_s, now_s
        if lost_s > SUSPENSION_MIN_S:
            log.info(
                "this machine was suspended for %(suspended_s).1f s: QUORUM settles again",
                {"suspended_s": lost_s},
            )
            self.drop_chain()
            self._trusted_s -= lost_s


def fsync_steps_ms(wait_ms: int) -> list[int]:
    """The time-outs of one WAITAOF after the other, together so long.

    A WAITAOF makes the master ask its replicas, which answer at once with what is on their disks:
    not yet with the write that came with the question. By themselves they report only once a
    second, so that a single WAITAOF takes that long: within 250 ms it counted both replicas in 2
    of 25 attempts (measured, Valkey 9.1). Each step asks again, and once the replicas have
    answered, the steps that follow return at once.
    """
    steps_ms = []
    step_ms, left_ms = FSYNC_FIRST_STEP_MS, wait_ms
    while left_ms > 0:
        steps_ms.append(min(step_ms, left_ms))
        left_ms -= steps_ms[-1]
        step_ms *= FSYNC_STEP_FACTOR
    return steps_ms


def _read_barrier(
    replies: Sequence[Reply],
    own: Sequence[Reply],
    sent_s: float,
    answered_s: float,
    *,
    fsync: bool,
) -> Answer:
    """What WAIT, or the last WAITAOF, and ROLE said: the last two replies.

    Args:
        own: the replies of the scripts.

    Raises:
        DemotedError: the node was demoted, or says nothing that can be read.
    """
    acked, role = replies[-2:]
    if fsync and isinstance(acked, list):
        local, acked = acked
        # The master's own file counts as much as a replica's: without it nothing is confirmed.
        acked = acked if local else -1
    if fsync and isinstance(acked, Exception) and "unknown command" in str(acked):
        # At the start it is refused where it is the default; a topic may ask for it all the same.
        raise DemotedError(
            "the server does not have WAITAOF, which fsync needs; use Redis 7.2, Valkey 7.2 or "
            "newer, or a topic without fsync",
            own,
        )
    if not isinstance(acked, int) or not isinstance(role, list) or role[0] != b"master":
        raise DemotedError(f"the node was demoted: {acked!r:.80}", own)
    attached = frozenset((host.decode(), int(port)) for host, port, _ in role[2])
    return Answer(sent_s, answered_s, acked, attached)
