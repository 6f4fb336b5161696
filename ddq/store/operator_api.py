"""The operator API of the store: dead tasks, purge and the deletion of topics.

Each repeats a bounded script; a call that has run its share of them says that it is not done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ddq.config import Settings
from ddq.errors import DdqError
from ddq.store.batch import run_batch
from ddq.store.ids import pack_id
from ddq.store.keys import shard_of
from ddq.store.refusals import refused
from ddq.store.runner import Call, text
from ddq.store.shard_scripts import ShardScripts
from ddq.store.steps import Steps
from ddq.store.topics import TopicRegistry
from ddq.task import Outcome, Receipt, Topic


@dataclass(frozen=True, slots=True)
class Progress:
    """How many tasks one call moved, and whether nothing is left to do."""

    count: int
    done: bool


class OperatorApi:
    """The operator API of the store."""

    def __init__(self, topics: TopicRegistry, scripts: ShardScripts, settings: Settings) -> None:
        self._topics = topics
        self._scripts = scripts
        self._settings = settings

    async def redrive_all(self, topic: Topic, call: Call) -> Progress:
        """Gives every task that was dead at the first call of the request a new run.

        A shard that fails does not keep the others from their turn.

        Raises:
            WriteOutcomeUnknown: some steps were taken, and none of them moved a task.
            DdqError: as ShardScripts.run.
        """
        steps = Steps(f"the redrive of topic {topic.name!r}")
        redriven, left = 0, self._settings.operator_steps_max_count
        failure: DdqError | None = None
        for index in range(topic.shards):
            done = 0
            while not done:
                if left == 0:
                    return Progress(redriven, done=False)
                args = (call.request_id, self._settings.promote_batch_count)
                own = call if topic.shards == 1 else call.half()
                try:
                    reply = await steps.take(self._scripts.run(topic, index, "redrive", args, own))
                except DdqError as error:
                    failure = failure if failure and not failure.definite else error
                    break
                count, done, _ = reply.body[0]
                redriven += count
                # A shard that has nothing left costs nothing: else a topic of more shards than
                # steps would never be done.
                left -= not done
        if failure is not None:
            return _so_far(redriven, steps.judged(failure))
        return Progress(redriven, done=True)

    async def redrive(
        self, topic: Topic, task_ids: Sequence[str], call: Call
    ) -> list[Outcome[int]]:
        """Gives the named dead tasks a new run; the value of each outcome is 1 if done.

        A shard whose script failed gives that error to its tasks, and to no others.

        Raises:
            DdqError: as ShardScripts.run, if no shard answered.
        """

        def read(task_id: str, status: bytes) -> int | DdqError:
            return 1 if status == b"OK" else refused(topic, task_id, text(status), 0)

        outcomes = await run_batch(
            self._scripts,
            topic,
            "redrive",
            task_ids,
            str,
            lambda _, ids: [pack_id(each) for each in ids],
            read,
            call,
            head=[call.request_id, 0],
            results_of=lambda body: body[2],
        )
        failures = [each.error for each in outcomes if each.error and each.receipt is None]
        if failures and len(failures) == len(outcomes):
            raise min(failures, key=lambda error: error.definite)
        return outcomes

    async def delete_dead(
        self, topic: Topic, task_id: str, expected_revision: int | None, call: Call
    ) -> tuple[int, Receipt]:
        """Ends a dead task as purged; returns its revision.

        Raises:
            TaskNotFound, TaskNotDead, RevisionMismatch: nothing changed.
        """
        expected = "" if expected_revision is None else expected_revision
        reply = await self._scripts.run(
            topic,
            shard_of(task_id, topic.shards),
            "delete_dead",
            [pack_id(task_id), expected],
            call,
        )
        status, revision = reply.body[0]
        if status != b"OK":
            raise refused(topic, task_id, text(status), revision)
        return revision, reply.receipt

    async def purge(self, topic: Topic, call: Call, *, while_deleting: bool = False) -> Progress:
        """Ends every task that the topic held at the first call of the request as purged.

        Raises:
            WriteOutcomeUnknown: the cut was drawn on some shards only, or nothing was collected.
            DdqError: as ShardScripts.run.
        """

        async def step(index: int, limit: int) -> tuple[int, int]:
            args = (call.request_id, limit)
            reply = await self._scripts.run(
                topic, index, "purge", args, call, while_deleting=while_deleting
            )
            count, done = reply.body[0]
            return count, done

        steps = Steps(f"the purge of topic {topic.name!r}")
        # The cut is drawn on every shard before anything is collected on the first: what is
        # purged is decided by the start of the request, not by how long it takes.
        drawn = await steps.take_all(step(index, 0) for index in range(topic.shards))
        purged, left = 0, self._settings.operator_steps_max_count
        for index, (_, done_before) in enumerate(drawn):
            done = done_before
            while not done:
                if left == 0:
                    return Progress(purged, done=False)
                try:
                    count, done = await steps.take(step(index, self._settings.purge_batch_count))
                except DdqError as error:
                    return _so_far(purged, error)
                purged += count
                left -= not done
        return Progress(purged, done=True)

    async def delete_topic(self, topic: Topic, call: Call) -> Progress:
        """Ends every task as purged and forgets the topic.

        Raises:
            WriteOutcomeUnknown: the deletion has begun; it continues when it is called again.
            DdqError: as ShardScripts.run.
        """
        steps = Steps(f"the deletion of topic {topic.name!r}")
        topic = await steps.take(self._topics.mark_deleting(topic, call))
        # One walk for all calls of this deletion: nothing new comes to a topic that is going.
        own = replace(call, request_id=f"delete {topic.uid.hex()}")
        progress = await steps.take(self.purge(topic, own, while_deleting=True))
        if not progress.done:
            return progress
        left = self._settings.operator_steps_max_count
        for index in range(topic.shards):
            done = 0
            while not done:
                if left == 0:
                    return Progress(progress.count, done=False)
                reply = await steps.take(
                    self._scripts.run(
                        topic,
                        index,
                        "erase",
                        [self._settings.purge_batch_count],
                        own,
                        while_deleting=True,
                    )
                )
                (done,) = reply.body[0]
                left -= not done
        await steps.take(self._topics.forget(topic, call))
        return progress


def _so_far(count: int, error: BaseException) -> Progress:
    """How far a request came that a step ended which certainly did nothing, if that is anywhere.

    Raises:
        DdqError: a caller that calls again for as long as it is not done would not come further.
    """
    was_refused = isinstance(error, DdqError) and (
        error.definite or isinstance(error.__cause__, DdqError)
    )
    if count and was_refused:
        return Progress(count, done=False)
    raise error
