"""Runs scripts on a topic's shards, and reloads a topic that turned out to be stale.

JobStore and the other users of the store call this; it calls ScriptRunner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ddq.errors import TopicChanged, TopicNotFound
from ddq.store.keys import ShardId
from ddq.store.runner import Call, ScriptReply, ScriptRunner, TopicStaleError
from ddq.store.shard_settings import ShardSettings
from ddq.store.topics import TopicRegistry
from ddq.task import Topic

Args = Sequence[str | bytes | int]

ATTEMPTS_MAX_COUNT = 4
"""A topic whose settings change more often during one script is an error."""


class ShardScripts:
    """Runs a script on one shard of a topic, with the topic as it is now.

    Args:
        runner: runs the script once.
        topics: from which a stale topic is reloaded.
        shard_settings: bring a shard forward that has older settings than the registry.
    """

    def __init__(
        self, runner: ScriptRunner, topics: TopicRegistry, shard_settings: ShardSettings
    ) -> None:
        self._runner = runner
        self._topics = topics
        self._shard_settings = shard_settings

    async def run(
        self,
        topic: Topic,
        index: int,
        script: str,
        args: Args | Callable[[Topic], Args],
        call: Call,
        *,
        while_deleting: bool = False,
    ) -> ScriptReply:
        """Runs a script on a shard, with the topic as it is now.

        Args:
            args: the script's own arguments, or a function that makes them from the topic: what
                depends on its settings has to be made again when those turn out to be old.

        Raises:
            TopicNotFound: the topic has gone meanwhile.
            TopicChanged: it has another number of shards, or its settings keep changing.
            DdqError: as ScriptRunner.run.
        """
        shard = ShardId(topic.name, index)
        current = self._topics.known(topic.name) or topic
        for _ in range(ATTEMPTS_MAX_COUNT):
            if current.shards != topic.shards:
                raise TopicChanged(
                    f"topic {topic.name!r} was recreated with another number of shards"
                )
            try:
                own = args(current) if callable(args) else args
                return await self._runner.run(current, shard, script, own, call)
            except TopicStaleError:
                loaded = await self._topics.load(topic.name, call)
                if loaded is None or (loaded.deleting and not while_deleting):
                    raise TopicNotFound(f"topic {topic.name!r} does not exist") from None
                current = loaded
                await self._shard_settings.configure(current, shard, call)
        raise TopicChanged(f"the settings of topic {topic.name!r} keep changing; try again")
