"""What an operator does to the store: accepting a loss, resetting a clock mark, an upgrade."""

from __future__ import annotations

from dataclasses import dataclass

from ddq.entropy import Clock
from ddq.store.directory import TopicDirectory
from ddq.store.keys import ShardId
from ddq.store.runner import Call
from ddq.store.shard_scripts import ShardScripts
from ddq.store.topics import TopicRegistry
from ddq.task import Topic


@dataclass(frozen=True, slots=True)
class MarkReset:
    """A shard's clock mark before and after; ms since 1970."""

    shard: ShardId
    before_ms: int
    after_ms: int


class RecoveryApi:
    """Runs the scripts that no server runs by itself.

    Args:
        clock: the operator's; a recovery is numbered by it.
    """

    def __init__(
        self,
        topics: TopicRegistry,
        scripts: ShardScripts,
        directory: TopicDirectory,
        clock: Clock,
    ) -> None:
        self._topics = topics
        self._scripts = scripts
        self._directory = directory
        self._clock = clock

    async def topics(self, names: list[str], call: Call) -> list[Topic]:
        """Those with the names, all if there are none; also such as are being deleted.

        Raises:
            TopicNotFound: one does not exist.
        """
        if not names:
            return (await self._directory.load_all(call))[0]
        found = []
        for name in names:
            topic = await self._topics.load(name, call)
            found.append(topic if topic is not None else await self._topics.require(name, call))
        return found

    async def accept_rollback(self, topic: Topic, call: Call) -> None:
        """Lets a topic's shards continue although they lost confirmed writes."""
        for index in range(topic.shards):
            await self._scripts.run(
                topic, index, "accept_rollback", [self._clock.now_ms()], call, while_deleting=True
            )

    async def accept_rollback_of_registry(self, call: Call) -> None:
        """The same for the table of topics."""
        await self._topics.accept_rollback(self._clock.now_ms(), call)

    async def upgrade(self, call: Call) -> None:
        """Allows the latest format in the store; schedulers bring each shard to it."""
        await self._topics.upgrade(call)

    async def reset_clock(self, topic: Topic, call: Call) -> list[MarkReset]:
        """Sets the mark of each of a topic's shards to the store's clock.

        Raises:
            ClockUnsafe: the store's clock and this process's differ by too much.
        """
        done = []
        for index in range(topic.shards):
            reply = await self._scripts.run(
                topic, index, "reset_clock", [], call, while_deleting=True
            )
            _, before_ms, after_ms = reply.body[0]
            done.append(MarkReset(ShardId(topic.name, index), before_ms, after_ms))
        return done
