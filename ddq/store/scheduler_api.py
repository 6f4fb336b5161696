"""The scheduler API of the store: leadership, promotion, reaping and collecting."""

from __future__ import annotations

from dataclasses import dataclass

from ddq.config import Settings
from ddq.entropy import Entropy
from ddq.store.keys import ShardId
from ddq.store.records import pack_topic_policy
from ddq.store.runner import Call, text
from ddq.store.shard_scripts import ShardScripts
from ddq.task import Receipt, Topic

NONCE_BYTES = 16


@dataclass(frozen=True, slots=True)
class Leadership:
    """The right to move tasks of one shard; the scripts check both, not the time."""

    nonce: bytes
    epoch: int


@dataclass(frozen=True, slots=True)
class NextWakeUp:
    """When something of a shard is next to be done, ms of the store's clock; None: nothing is.

    ``store_ms`` is that clock now.
    """

    store_ms: int
    due_ms: int | None
    expiry_ms: int | None
    collect_ms: int | None

    @property
    def collectable(self) -> bool:
        """Whether a tombstone or request record is to be removed."""
        return self.collect_ms is not None and self.collect_ms <= self.store_ms

    @property
    def promotable(self) -> bool:
        """Whether a task is due."""
        return self.due_ms is not None and self.due_ms <= self.store_ms

    @property
    def reapable(self) -> bool:
        """Whether a lease has expired."""
        return self.expiry_ms is not None and self.expiry_ms <= self.store_ms


@dataclass(frozen=True, slots=True)
class Survey:
    """A shard's counters, the format of its keys and records, and its next wake-up."""

    counts: dict[str, int]
    tombstones: int
    oldest_ready_due_ms: int | None
    epoch: int
    format: int
    next_wake_up: NextWakeUp
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Acquired:
    """The answer to a scheduler that wants to lead; ``leadership`` is None if another does."""

    leadership: Leadership | None
    remaining_ms: int
    next_wake_up: NextWakeUp


@dataclass(frozen=True, slots=True)
class Moved:
    """The answer to a batch.

    Attributes:
        deposed: nothing moved because another leads.
        count: tasks that moved.
        late_ms: of a promotion: how long the first of them had been due; None when none moved.
    """

    deposed: bool
    count: int
    late_ms: int | None
    next_wake_up: NextWakeUp


class SchedulerApi:
    """The scheduler API of the store."""

    def __init__(self, scripts: ShardScripts, entropy: Entropy, settings: Settings) -> None:
        self._scripts = scripts
        self._entropy = entropy
        self._settings = settings

    async def acquire(
        self,
        topic: Topic,
        shard: ShardId,
        held: Leadership | None,
        call: Call,
        *,
        rank: int = 0,
        challenge: bool = False,
    ) -> Acquired:
        """Takes the leadership of a shard, or keeps it.

        Args:
            rank: of the caller on this shard, from 0 to 2**32 - 1.
            challenge: take it also from a living leader, if that has a lower rank.
        """
        nonce = self._entropy.token(NONCE_BYTES)
        reply = await self._scripts.run(
            topic,
            shard.index,
            "acquire",
            [
                nonce,
                held.nonce if held else b"",
                held.epoch if held else 0,
                self._settings.leader_lease_ms,
                rank,
                int(challenge),
            ],
            call,
        )
        status, epoch, remaining_ms, *times = reply.body[0]
        next_wake_up = _next_wake_up(reply.store_ms, times)
        if status == b"TAKEN":
            return Acquired(None, remaining_ms, next_wake_up)
        if status == b"KEPT" and held:
            nonce = held.nonce
        return Acquired(Leadership(nonce, epoch), remaining_ms, next_wake_up)

    async def resign(self, topic: Topic, shard: ShardId, held: Leadership, call: Call) -> bool:
        """Hands the leadership over; False if it was lost before."""
        reply = await self._scripts.run(
            topic, shard.index, "resign", [held.nonce, held.epoch], call
        )
        return text(reply.body[0][0]) == "RESIGNED"

    async def promote(
        self,
        topic: Topic,
        shard: ShardId,
        held: Leadership,
        call: Call,
        limit: int | None = None,
    ) -> Moved:
        """Moves one batch of due tasks to ready.

        Args:
            limit: tasks to look at; None: promote_batch_count.
        """
        settings = self._settings
        limit = settings.promote_batch_count if limit is None else limit
        args = (held.nonce, held.epoch, settings.leader_lease_ms, limit)
        reply = await self._scripts.run(topic, shard.index, "promote", args, call)
        status, count, late_ms, *times = reply.body[0]
        return _moved(status, count, late_ms, reply.store_ms, times)

    async def reap(
        self,
        topic: Topic,
        shard: ShardId,
        held: Leadership,
        call: Call,
        limit: int | None = None,
    ) -> Moved:
        """Ends one batch of expired attempts.

        Args:
            limit: leases to look at; None: promote_batch_count.
        """
        settings = self._settings
        limit = settings.promote_batch_count if limit is None else limit
        randoms: list[str | bytes | int] = [repr(self._entropy.random()) for _ in range(limit)]
        args = [held.nonce, held.epoch, settings.leader_lease_ms, *randoms]
        reply = await self._scripts.run(topic, shard.index, "reap", args, call)
        status, count, *times = reply.body[0]
        return _moved(status, count, -1, reply.store_ms, times)

    async def collect(self, topic: Topic, shard: ShardId, call: Call) -> tuple[int, NextWakeUp]:
        """Forgets one batch of tombstones and request records; how many, and what is next."""
        reply = await self._scripts.run(
            topic, shard.index, "collect", [self._settings.collect_batch_count], call
        )
        tombstones, requests, *times = reply.body[0]
        return tombstones + requests, _next_wake_up(reply.store_ms, times)

    async def upgrade(self, topic: Topic, shard: ShardId, store_format: int, call: Call) -> bool:
        """One step of bringing a shard to a format; whether it was the last one."""
        policy = pack_topic_policy(topic.settings.retry_policy)
        args: list[str | bytes | int] = [store_format, policy, self._settings.promote_batch_count]
        reply = await self._scripts.run(topic, shard.index, "upgrade", args, call)
        (done,) = reply.body[0]
        return bool(done)

    async def survey(self, topic: Topic, shard: ShardId, call: Call) -> Survey:
        """The counters of a shard and what is next."""
        reply = await self._scripts.run(topic, shard.index, "survey", [], call)
        figures, tombstones, oldest_ms, epoch, form, *times = reply.body[0]
        counts = {
            text(name): int(value) for name, value in zip(figures[::2], figures[1::2], strict=True)
        }
        return Survey(
            counts,
            tombstones,
            _time(oldest_ms),
            epoch,
            form,
            _next_wake_up(reply.store_ms, times),
            reply.receipt,
        )


def _time(ms: int) -> int | None:
    return None if ms < 0 else ms


def _next_wake_up(store_ms: int, times: list[int]) -> NextWakeUp:
    return NextWakeUp(store_ms, *(_time(ms) for ms in times))


def _moved(status: bytes, count: int, late_ms: int, store_ms: int, times: list[int]) -> Moved:
    return Moved(status == b"NOT_LEADER", count, _time(late_ms), _next_wake_up(store_ms, times))
