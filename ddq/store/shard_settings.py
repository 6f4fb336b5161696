"""Each shard's copy of its topic's settings.

A shard keeps uid, shard count and settings revision, and every script compares them with those of
its caller. The copy only moves forward.
"""

from __future__ import annotations

from ddq.errors import StoreMalformed
from ddq.store.keys import ShardId
from ddq.store.records import FORMAT, pack_topic_policy
from ddq.store.runner import Call, ScriptRunner
from ddq.store.steps import Steps
from ddq.task import Topic


class ShardSettings:
    """Copies a topic's settings to its shards."""

    def __init__(self, runner: ScriptRunner) -> None:
        self._runner = runner

    async def configure_all(self, topic: Topic, call: Call, *, after: str = "") -> None:
        """Brings the topic's settings to every shard.

        Args:
            after: what has been done to the topic before; empty for nothing.

        Raises:
            WriteOutcomeUnknown: only part of it was done.
            DdqError: as configure.
        """
        steps = Steps(after or f"the configuration of topic {topic.name!r}", began=bool(after))
        await steps.take_all(
            self.configure(topic, ShardId(topic.name, index), call) for index in range(topic.shards)
        )

    async def configure(self, topic: Topic, shard: ShardId, call: Call) -> None:
        """Brings the topic's settings to one shard, if that has no later ones.

        Raises:
            StoreMalformed: the shard's keys belong to an earlier topic that was not deleted.
        """
        settings = topic.settings
        # An even share, rounded up: a topic holds at least what its setting says.
        share = -(-settings.max_tasks // topic.shards)
        share_bytes = -(-settings.max_bytes // topic.shards)
        reply = await self._runner.run(
            topic,
            shard,
            "configure",
            [
                int(topic.paused),
                int(topic.deleting),
                share,
                settings.tombstone_retention_ms,
                int(settings.journal),
                settings.journal_max_entries,
                min(self._runner.store_format, FORMAT),
                pack_topic_policy(settings.retry_policy),
                share_bytes,
            ],
            call,
        )
        if reply.body[0][0] == b"OTHER_TOPIC":
            raise StoreMalformed(
                f"{shard.key('control')} belongs to an earlier topic of this name that was not "
                "deleted with DeleteTopic; remove the keys that end in " + shard.tag
            )
