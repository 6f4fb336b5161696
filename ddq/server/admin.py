"""DelayQueueAdminService: topics, dead tasks and statistics. Handlers as in service.py."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from google.protobuf.message import Message

from ddq.config import DEFAULTS, LIMITS, retention_min_ms
from ddq.errors import RevisionMismatch, TopicExists, TopicNotFound
from ddq.server import validation as check
from ddq.server import wire
from ddq.server.requests import page_size, view_is_full
from ddq.server.status import OK, to_status
from ddq.server.validation import Problems
from ddq.store.job_values import Cursor
from ddq.store.keys import ShardId
from ddq.store.open import Store
from ddq.store.runner import Call
from ddq.task import TaskState, Topic
from ddq.v1 import delay_queue_admin_service_pb2 as pb
from ddq.v1 import task_pb2, topic_pb2

_PAUSE_ATTEMPTS_COUNT = 5
_PATHS = {
    *(field.name for field in topic_pb2.TopicSettings.DESCRIPTOR.fields),
    *(f"default_retry_policy.{field.name}" for field in task_pb2.RetryPolicy.DESCRIPTOR.fields),
}
"""What an update mask may name."""
_PATHS_MAX_COUNT = 1_000


class AdminService:
    """The handlers, one an RPC."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._topics = store.topics
        self._retention_min_ms = retention_min_ms(store.settings)

    # Topics --------------------------------------------------------------------------------

    async def create_topic(
        self, request: pb.CreateTopicRequest, call: Call
    ) -> pb.CreateTopicResponse:
        """Makes a topic; the same settings again are fine."""
        problems = Problems()
        check.topic_name(problems, request.name, "name")
        shards = check.count(
            problems, request.shards, "shards", default=1, most=LIMITS.shards_max_count
        )
        with problems.within("settings"):
            settings = check.topic_settings(
                problems,
                request.settings,
                retention_min_ms=self._retention_min_ms,
                defaults=self._topics.default_settings,
            )
        problems.raise_if_any()
        topic, created = await self._topics.create(request.name, shards, settings, call)
        if topic.deleting:
            raise TopicExists(f"topic {topic.name!r} is being deleted; wait until it is gone")
        if not created and (topic.shards, topic.settings) != (shards, settings):
            raise TopicExists(f"topic {topic.name!r} exists with other settings")
        return pb.CreateTopicResponse(topic=wire.topic(topic), created=created)

    async def get_topic(self, request: pb.GetTopicRequest, call: Call) -> pb.GetTopicResponse:
        """One topic."""
        return pb.GetTopicResponse(topic=wire.topic(await self._load(request.name, call)))

    async def list_topics(self, request: pb.ListTopicsRequest, call: Call) -> pb.ListTopicsResponse:
        """Topics by name; a record that cannot be read is an error, not a gap."""
        problems = Problems()
        limit = check.count(
            problems,
            request.page_size,
            "page_size",
            default=DEFAULTS.page_count,
            most=LIMITS.page_max_count,
        )
        problems.raise_if_any()
        after = wire.cursor(request.page_token).id
        topics, more = await self._store.directory.page(after, limit, call)
        cursor = Cursor(0, "", topics[-1].name.encode()) if more else None
        return pb.ListTopicsResponse(
            topics=[wire.topic(topic) for topic in topics], next_page_token=wire.page_token(cursor)
        )

    async def update_topic(
        self, request: pb.UpdateTopicRequest, call: Call
    ) -> pb.UpdateTopicResponse:
        """Changes the settings that the mask names."""
        problems = Problems()
        check.topic_name(problems, request.name, "name")
        paths = request.update_mask.paths
        if not paths:
            problems.add("update_mask", "is empty; name the fields of settings to change")
        if check.not_too_many(problems, paths, "update_mask", most=_PATHS_MAX_COUNT):
            for path in paths:
                if path not in _PATHS:
                    hint = (
                        "is fixed at creation" if path == "shards" else "is not a field of settings"
                    )
                    problems.add("update_mask", f"path {path!r} {hint}")
        problems.raise_if_any()
        topic = await self._load(request.name, call)
        if topic.deleting:
            raise TopicNotFound(f"topic {topic.name!r} is being deleted")
        if request.HasField("expected_revision") and (request.expected_revision != topic.revision):
            raise RevisionMismatch(
                f"topic {topic.name!r} is not at the expected revision but at {topic.revision}"
            )
        merged = wire.topic_settings(topic.settings)
        for path in paths:
            _copy_path(request.settings, merged, path)
        with problems.within("settings"):
            settings = check.topic_settings(
                problems,
                merged,
                retention_min_ms=self._retention_min_ms,
                defaults=self._topics.default_settings,
            )
        problems.raise_if_any()
        if settings == topic.settings:
            return pb.UpdateTopicResponse(topic=wire.topic(topic))
        changed = await self._topics.update(topic, replace(topic, settings=settings), call)
        return pb.UpdateTopicResponse(topic=wire.topic(changed))

    async def pause_topic(self, request: pb.PauseTopicRequest, call: Call) -> pb.PauseTopicResponse:
        """Stops promotion and delivery."""
        topic = await self._set_paused(request.name, paused=True, call=call)
        return pb.PauseTopicResponse(topic=wire.topic(topic))

    async def resume_topic(
        self, request: pb.ResumeTopicRequest, call: Call
    ) -> pb.ResumeTopicResponse:
        """Continues promotion and delivery."""
        topic = await self._set_paused(request.name, paused=False, call=call)
        return pb.ResumeTopicResponse(topic=wire.topic(topic))

    async def _set_paused(self, name: str, *, paused: bool, call: Call) -> Topic:
        for attempt in range(_PAUSE_ATTEMPTS_COUNT):
            topic = await self._load(name, call)
            if topic.deleting:
                raise TopicNotFound(f"topic {name!r} is being deleted")
            if topic.paused == paused:
                # An earlier call may have failed between registry and shards.
                await self._store.shard_settings.configure_all(topic, call)
                return topic
            try:
                return await self._topics.update(topic, replace(topic, paused=paused), call)
            except RevisionMismatch:
                # Pausing does not depend on what else was changed: read it again.
                if attempt == _PAUSE_ATTEMPTS_COUNT - 1:
                    raise
        raise AssertionError("unreachable")

    async def delete_topic(
        self, request: pb.DeleteTopicRequest, call: Call
    ) -> pb.DeleteTopicResponse:
        """Ends every task and forgets the topic; one that is not there is deleted already."""
        problems = Problems()
        check.topic_name(problems, request.name, "name")
        check.uid(problems, request.uid)
        problems.raise_if_any()
        topic = await self._topics.load(request.name, call)
        if topic is None or request.uid not in {b"", topic.uid}:
            return pb.DeleteTopicResponse(done=True)
        progress = await self._store.operator_api.delete_topic(topic, call)
        return pb.DeleteTopicResponse(done=progress.done, purged=progress.count)

    async def purge_topic(self, request: pb.PurgeTopicRequest, call: Call) -> pb.PurgeTopicResponse:
        """Ends every task that the topic held at the start."""
        problems = Problems()
        check.topic_name(problems, request.name, "name")
        check.request_id(problems, request.request_id, required=True)
        problems.raise_if_any()
        topic = await self._topics.require(request.name, call)
        progress = await self._store.operator_api.purge(topic, call)
        return pb.PurgeTopicResponse(done=progress.done, purged=progress.count)

    # Dead tasks ----------------------------------------------------------------------------

    async def list_dead_tasks(
        self, request: pb.ListDeadTasksRequest, call: Call
    ) -> pb.ListDeadTasksResponse:
        """One page of the dead tasks."""
        problems = Problems()
        check.topic_name(problems, request.topic)
        limit = page_size(problems, request)
        full = view_is_full(problems, request.view)
        problems.raise_if_any()
        tasks, cursor = await self._store.jobs.list_tasks(
            request.topic,
            TaskState.DEAD,
            full=full,
            limit=limit,
            cursor=wire.cursor(request.page_token),
            call=call,
        )
        return pb.ListDeadTasksResponse(
            tasks=[wire.task(task) for task in tasks], next_page_token=wire.page_token(cursor)
        )

    async def redrive_dead_tasks(
        self, request: pb.RedriveDeadTasksRequest, call: Call
    ) -> pb.RedriveDeadTasksResponse:
        """Gives dead tasks a new run of attempts."""
        problems = Problems()
        check.topic_name(problems, request.topic)
        check.request_id(problems, request.request_id, required=True)
        if check.not_too_many(problems, request.ids, "ids", most=LIMITS.batch_max_items):
            for position, task_id in enumerate(request.ids):
                check.task_id(problems, task_id, f"ids[{position}]")
            check.unique_ids(problems, request.ids, "ids")
        problems.raise_if_any()
        topic = await self._topics.require(request.topic, call)
        if not request.ids:
            progress = await self._store.operator_api.redrive_all(topic, call)
            return pb.RedriveDeadTasksResponse(redriven=progress.count, done=progress.done)
        outcomes = await self._store.operator_api.redrive(topic, request.ids, call)
        results = [
            pb.RedriveResult(id=task_id, status=to_status(outcome.error) if outcome.error else OK)
            for task_id, outcome in zip(request.ids, outcomes, strict=True)
        ]
        redriven = sum(outcome.error is None for outcome in outcomes)
        return pb.RedriveDeadTasksResponse(redriven=redriven, done=True, results=results)

    async def delete_dead_task(
        self, request: pb.DeleteDeadTaskRequest, call: Call
    ) -> pb.DeleteDeadTaskResponse:
        """Ends a dead task as purged."""
        problems = Problems()
        check.topic_name(problems, request.topic)
        check.task_id(problems, request.id)
        problems.raise_if_any()
        topic = await self._topics.require(request.topic, call)
        expected = request.expected_revision if request.HasField("expected_revision") else None
        revision, receipt = await self._store.operator_api.delete_dead(
            topic, request.id, expected, call
        )
        return pb.DeleteDeadTaskResponse(revision=revision, receipt=wire.receipt(receipt))

    # Figures -------------------------------------------------------------------------------

    async def get_topic_stats(
        self, request: pb.GetTopicStatsRequest, call: Call
    ) -> pb.GetTopicStatsResponse:
        """The counters of every shard, and their sum."""
        problems = Problems()
        check.topic_name(problems, request.topic)
        problems.raise_if_any()
        topic = await self._topics.require(request.topic, call)
        surveys = await asyncio.gather(
            *(
                self._store.scheduler_api.survey(topic, ShardId(topic.name, index), call)
                for index in range(topic.shards)
            )
        )
        return pb.GetTopicStatsResponse(
            counts=wire.total_counts(surveys),
            shards=[wire.shard_stats(index, survey) for index, survey in enumerate(surveys)],
        )

    async def _load(self, name: str, call: Call) -> Topic:
        problems = Problems()
        check.topic_name(problems, name, "name")
        problems.raise_if_any()
        topic = await self._topics.load(name, call)
        if topic is None:
            raise TopicNotFound(f"topic {name!r} does not exist")
        return topic


def _copy_path(source: topic_pb2.TopicSettings, target: topic_pb2.TopicSettings, path: str) -> None:
    """Sets one field of ``target`` as ``source`` has it; unset there means the default."""
    outer, _, inner = path.partition(".")
    if inner:
        _copy_field(getattr(source, outer), getattr(target, outer), inner)
    else:
        _copy_field(source, target, outer)


def _copy_field(source: Message, target: Message, name: str) -> None:
    descriptor = source.DESCRIPTOR.fields_by_name[name]
    if descriptor.has_presence and not source.HasField(name):
        target.ClearField(name)
    elif descriptor.message_type is not None:
        getattr(target, name).CopyFrom(getattr(source, name))
    else:
        setattr(target, name, getattr(source, name))
