"""What operators ask of the store: dead tasks, purge and the deletion of topics.

Each repeats a bounded script; a call that has run its share of them says that it is not done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddq.config import Settings
from ddq.keys import shard_of
from ddq.store.jobstore import refused
from ddq.store.runner import Call
from ddq.store.topics import TopicRegistry, text
from ddq.task import Outcome, Receipt, Topic


@dataclass(frozen=True, slots=True)
class Progress:
    """How many tasks one call moved, and whether nothing is left to do."""

    count: int
    done: bool


class Operations:
    """The operator's part of the store."""

    def __init__(self, topics: TopicRegistry, settings: Settings) -> None:
        self.topics = topics
        self._settings = settings

    async def redrive_all(self, topic: Topic, call: Call) -> Progress:
        """Gives every task that was dead at the first call of the request a new run."""
        redriven, steps = 0, self._settings.operator_steps_max_count
        for index in range(topic.shards):
            done = 0
            while not done:
                if steps == 0:
                    return Progress(redriven, done=False)
                args = (call.request_id, self._settings.promote_batch_count)
                reply = await self.topics.run(topic, index, "redrive", args, call)
                count, done, _ = reply.body[0]
                redriven += count
                # A shard that has nothing left costs nothing: else a topic of more shards than
                # steps would never be done.
                steps -= not done
        return Progress(redriven, done=True)

    async def redrive(
        self, topic: Topic, task_ids: Sequence[str], call: Call
    ) -> list[Outcome[int]]:
        """Gives the named dead tasks a new run; the value of each outcome is 1 if done."""
        outcomes: list[Outcome[int]] = [Outcome()] * len(task_ids)
        by_shard: dict[int, list[int]] = {}
        for position, task_id in enumerate(task_ids):
            by_shard.setdefault(shard_of(task_id, topic.shards), []).append(position)
        for index, positions in by_shard.items():
            ids = [task_ids[position] for position in positions]
            reply = await self.topics.run(topic, index, "redrive", [call.request_id, 0, *ids], call)
            for position, status in zip(positions, reply.body[0][2], strict=True):
                if status == b"OK":
                    outcomes[position] = Outcome(value=1, receipt=reply.receipt)
                else:
                    error = refused(topic, task_ids[position], text(status), 0)
                    outcomes[position] = Outcome(error=error, receipt=reply.receipt)
        return outcomes

    async def delete_dead(
        self, topic: Topic, task_id: str, expected_revision: int | None, call: Call
    ) -> tuple[int, Receipt]:
        """Ends a dead task as purged; returns its revision.

        Raises:
            TaskNotFound, TaskNotDead, RevisionMismatch: nothing changed.
        """
        expected = "" if expected_revision is None else expected_revision
        reply = await self.topics.run(
            topic, shard_of(task_id, topic.shards), "delete_dead", [task_id, expected], call
        )
        status, revision = reply.body[0]
        if status != b"OK":
            raise refused(topic, task_id, text(status), revision)
        return revision, reply.receipt

    async def purge(self, topic: Topic, call: Call, *, while_deleting: bool = False) -> Progress:
        """Ends every task that the topic held at the first call of the request as purged."""

        async def step(index: int, limit: int) -> tuple[int, int]:
            args = (call.request_id, limit)
            reply = await self.topics.run(
                topic, index, "purge", args, call, while_deleting=while_deleting
            )
            count, done = reply.body[0]
            return count, done

        # The cut is drawn on every shard before anything is collected on the first: what is
        # purged is decided by the start of the request, not by how long it takes.
        drawn = [await step(index, 0) for index in range(topic.shards)]
        purged, steps = 0, self._settings.operator_steps_max_count
        for index, (_, done_before) in enumerate(drawn):
            done = done_before
            while not done:
                if steps == 0:
                    return Progress(purged, done=False)
                count, done = await step(index, self._settings.purge_batch_count)
                purged += count
                steps -= not done
        return Progress(purged, done=True)

    async def delete_topic(self, topic: Topic, call: Call) -> Progress:
        """Ends every task as purged and forgets the topic."""
        topic = await self.topics.mark_deleting(topic, call)
        # One walk for all calls of this deletion: nothing new comes to a topic that is going.
        own = Call(call.deadline_s, call.not_after_ms, f"delete {topic.uid.hex()}")
        progress = await self.purge(topic, own, while_deleting=True)
        if not progress.done:
            return progress
        steps = self._settings.operator_steps_max_count
        for index in range(topic.shards):
            done = 0
            while not done:
                if steps == 0:
                    return Progress(progress.count, done=False)
                reply = await self.topics.run(
                    topic, index, "erase", [self._settings.purge_batch_count], own,
                    while_deleting=True,
                )  # fmt: skip
                (done,) = reply.body[0]
                steps -= not done
        await self.topics.forget(topic, call)
        return progress
