"""The methods that operators call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager

from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2

from ddq.client import convert, convert_topics, rpcs
from ddq.client.calls import Caller
from ddq.client.status import failure_of_status
from ddq.client.topic_values import Redriven, Topic, TopicSettings, TopicStats
from ddq.client.values import DeadDeleted, ItemResult, Task
from ddq.errors import DdqError, OutcomeUnknown
from ddq.v1 import delay_queue_admin_service_pb2 as pb
from ddq.v1 import task_pb2


class TopicCalls(Caller):
    """Topics, dead letters, figures and health.

    ``timeout_s`` is for each request; methods that take several steps make several requests.
    """

    async def create_topic(
        self,
        name: str,
        *,
        shards: int = 0,
        settings: TopicSettings | None = None,
        timeout_s: float | None = None,
    ) -> tuple[Topic, bool]:
        """Makes a topic. Returns it, and whether it was not there before with these settings.

        Args:
            shards: 1 to 64, fixed from then on; 0: 1.

        Raises:
            TopicExists: it exists with other settings.
            InvalidArgument, OutcomeUnknown
        """
        request = pb.CreateTopicRequest(
            name=convert.text("name", name),
            shards=convert.uint("shards", shards, bits=32),
            settings=convert_topics.topic_settings(settings),
        )
        reply = await self._call(
            rpcs.CREATE_TOPIC, name, self._admin.CreateTopic, request, self._deadline(timeout_s)
        )
        return convert_topics.topic(reply.topic), reply.created

    async def get_topic(self, name: str, *, timeout_s: float | None = None) -> Topic:
        """One topic.

        Raises:
            TopicNotFound, TransportError
        """
        request = pb.GetTopicRequest(name=convert.text("name", name))
        reply = await self._call(
            rpcs.GET_TOPIC, name, self._admin.GetTopic, request, self._deadline(timeout_s)
        )
        return convert_topics.topic(reply.topic)

    async def list_topics(
        self, *, page_size: int = 0, timeout_s: float | None = None
    ) -> AsyncGenerator[Topic, None]:
        """All topics by name, page by page."""
        request = pb.ListTopicsRequest(page_size=convert.uint("page_size", page_size, bits=32))
        while True:
            reply = await self._call(
                rpcs.LIST_TOPICS,
                "topics",
                self._admin.ListTopics,
                request,
                self._deadline(timeout_s),
            )
            for message in reply.topics:
                yield convert_topics.topic(message)
            if not reply.next_page_token:
                return
            request.page_token = reply.next_page_token

    async def update_topic(
        self,
        name: str,
        settings: TopicSettings,
        *,
        reset: Sequence[str] = (),
        expected_revision: int | None = None,
        timeout_s: float | None = None,
    ) -> Topic:
        """Changes those settings that are not None.

        Args:
            reset: paths of settings that go back to the server's default, for example
                ``default_retry_policy.max_attempts``.
            expected_revision: only if the topic has this revision.

        Raises:
            TopicNotFound, RevisionMismatch, InvalidArgument, OutcomeUnknown
        """
        message = convert_topics.topic_settings(settings)
        request = pb.UpdateTopicRequest(
            name=convert.text("name", name),
            settings=message,
            update_mask=FieldMask(paths=[*convert_topics.set_paths(message), *reset]),
        )
        if expected_revision is not None:
            request.expected_revision = convert.uint("expected_revision", expected_revision)
        reply = await self._call(
            rpcs.UPDATE_TOPIC, name, self._admin.UpdateTopic, request, self._deadline(timeout_s)
        )
        return convert_topics.topic(reply.topic)

    async def delete_topic(self, name: str, *, timeout_s: float | None = None) -> int:
        """Ends every task as PURGED and forgets the topic, in as many steps as that takes.

        It is the topic that has the name now that is deleted: one that is made while this runs is
        not, however often the request is repeated.

        Returns:
            Tasks that were ended, as far as the replies say.

        Raises:
            TopicNotFound: it was not there to begin with.
            OutcomeUnknown
        """
        uid = (await self.get_topic(name, timeout_s=timeout_s)).uid
        purged, done, began = 0, False, False
        while not done:
            with _after_steps(f"DeleteTopic {name}", purged, began=began):
                reply = await self._call(
                    rpcs.DELETE_TOPIC,
                    name,
                    self._admin.DeleteTopic,
                    pb.DeleteTopicRequest(name=name, uid=uid),
                    self._deadline(timeout_s),
                )
            purged, done, began = purged + reply.purged, reply.done, True
        return purged

    async def pause_topic(self, name: str, *, timeout_s: float | None = None) -> Topic:
        """Stops promotion and delivery; everything else continues.

        Raises:
            TopicNotFound, OutcomeUnknown
        """
        request = pb.PauseTopicRequest(name=convert.text("name", name))
        reply = await self._call(
            rpcs.PAUSE_TOPIC, name, self._admin.PauseTopic, request, self._deadline(timeout_s)
        )
        return convert_topics.topic(reply.topic)

    async def resume_topic(self, name: str, *, timeout_s: float | None = None) -> Topic:
        """Ends a pause.

        Raises:
            TopicNotFound, OutcomeUnknown
        """
        request = pb.ResumeTopicRequest(name=convert.text("name", name))
        reply = await self._call(
            rpcs.RESUME_TOPIC, name, self._admin.ResumeTopic, request, self._deadline(timeout_s)
        )
        return convert_topics.topic(reply.topic)

    async def purge_topic(self, name: str, *, timeout_s: float | None = None) -> int:
        """Ends every task that the topic holds now as PURGED, in as many steps as that takes.

        Returns:
            Tasks that were ended, as far as the replies say.

        Raises:
            TopicNotFound, OutcomeUnknown
        """
        request_id, purged, done, began = self._new_id(), 0, False, False
        while not done:
            deadline = self._deadline(timeout_s)
            request = pb.PurgeTopicRequest(
                name=convert.text("name", name),
                request_id=request_id,
            )
            with _after_steps(f"PurgeTopic {name}", purged, began=began):
                reply = await self._call(
                    rpcs.PURGE_TOPIC, name, self._admin.PurgeTopic, request, deadline
                )
            purged, done, began = purged + reply.purged, reply.done, True
        return purged

    async def list_dead(
        self,
        topic: str,
        *,
        with_payload: bool = False,
        page_size: int = 0,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[Task, None]:
        """Dead tasks, latest last, page by page.

        Raises:
            TopicNotFound, TransportError
        """
        request = pb.ListDeadTasksRequest(
            topic=convert.text("topic", topic),
            page_size=convert.uint("page_size", page_size, bits=32),
            view=task_pb2.TASK_VIEW_FULL if with_payload else task_pb2.TASK_VIEW_BASIC,
        )
        while True:
            reply = await self._call(
                rpcs.LIST_DEAD_TASKS,
                topic,
                self._admin.ListDeadTasks,
                request,
                self._deadline(timeout_s),
            )
            for message in reply.tasks:
                yield convert.task(message)
            if not reply.next_page_token:
                return
            request.page_token = reply.next_page_token

    async def redrive(
        self,
        topic: str,
        task_ids: Sequence[str] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Redriven:
        """Gives dead tasks a new run of attempts, due now.

        Args:
            task_ids: 1 to 1,000; None: every task that is dead now.

        Raises:
            TopicNotFound, InvalidArgument, OutcomeUnknown
        """
        # The server takes none for all, and a selection that came out empty is not all.
        if task_ids is not None and not task_ids:
            raise convert.refused(
                "task_ids", "is empty; leave it out, or give None, for every task that is dead"
            )
        ids = [task_ids] if isinstance(task_ids, str) else task_ids or ()
        request_id, count, done, began = self._new_id(), 0, False, False
        results: tuple[ItemResult[bool], ...] = ()
        while not done:
            deadline = self._deadline(timeout_s)
            request = pb.RedriveDeadTasksRequest(
                topic=convert.text("topic", topic),
                ids=[convert.text("ids", task_id) for task_id in ids],
                request_id=request_id,
            )
            with _after_steps(f"RedriveDeadTasks {topic}", count, began=began):
                reply = await self._call(
                    rpcs.REDRIVE_DEAD_TASKS, topic, self._admin.RedriveDeadTasks, request, deadline
                )
            results = tuple(_redrive_result(message) for message in reply.results)
            count, done, began = count + reply.redriven, reply.done, True
        return Redriven(count, results)

    async def delete_dead(
        self,
        topic: str,
        task_id: str,
        *,
        expected_revision: int | None = None,
        timeout_s: float | None = None,
    ) -> DeadDeleted:
        """Ends a dead task as PURGED.

        Raises:
            TaskNotFound, FailedPrecondition, RevisionMismatch, OutcomeUnknown
        """
        deadline = self._deadline(timeout_s)
        request = pb.DeleteDeadTaskRequest(
            topic=convert.text("topic", topic),
            id=convert.text("id", task_id),
        )
        if expected_revision is not None:
            request.expected_revision = convert.uint("expected_revision", expected_revision)
        reply = await self._call(
            rpcs.DELETE_DEAD_TASK,
            f"{topic}/{task_id}",
            self._admin.DeleteDeadTask,
            request,
            deadline,
        )
        return DeadDeleted(reply.revision, convert.receipt(reply.receipt))

    async def stats(self, topic: str, *, timeout_s: float | None = None) -> TopicStats:
        """A topic in figures.

        Raises:
            TopicNotFound, TransportError
        """
        request = pb.GetTopicStatsRequest(topic=convert.text("topic", topic))
        reply = await self._call(
            rpcs.GET_TOPIC_STATS,
            topic,
            self._admin.GetTopicStats,
            request,
            self._deadline(timeout_s),
        )
        return convert_topics.topic_stats(reply)

    async def check_health(self, service: str = "", *, timeout_s: float | None = None) -> bool:
        """Whether the server says that it can serve; "" asks for the server as a whole.

        Raises:
            TransportError: no answer, or the server knows no such service.
        """
        reply = await self._call(
            rpcs.CHECK_HEALTH,
            service or "server",
            self._channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            ),
            health_pb2.HealthCheckRequest(service=service),
            self._deadline(timeout_s),
        )
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


@contextmanager
def _after_steps(what: str, count: int, *, began: bool) -> Iterator[None]:
    """The request of a further step: its error does not speak for the steps before.

    Raises:
        OutcomeUnknown: instead of an error that says that the request had no effect.
    """
    try:
        yield
    except DdqError as error:
        if not began or not error.definite:
            raise
        raise OutcomeUnknown(
            f"{what}: done in part, for {count} tasks; then: {error.message}",
            metadata={**error.metadata, "last_reason": error.reason},
        ) from error


def _redrive_result(message: pb.RedriveResult) -> ItemResult[bool]:
    if message.status.code == 0:
        return ItemResult(message.id, value=True)
    return ItemResult(message.id, error=failure_of_status(message.status).error)
