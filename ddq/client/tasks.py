"""The methods that producers and workers call."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime, timedelta

from ddq import tracing
from ddq.client import convert, rpcs
from ddq.client.batch import Item
from ddq.client.calls import Caller
from ddq.client.items import ItemRpc
from ddq.client.values import (
    Cancelled,
    Enqueued,
    ItemResult,
    Lease,
    NewTask,
    Rescheduled,
    RetryPolicy,
    Task,
)
from ddq.task import OnConflict, TaskState
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2

_BY_ID = (OnConflict.FAIL, OnConflict.RETURN_EXISTING)
"""Forms of which a repeat is known by the id and the content of the task."""


class TaskCalls(Caller):
    """Tasks: enqueue, retrieve, end, look at.

    Every method takes ``timeout_s``, the seconds for the request with all its repeats. Mutations
    raise OutcomeUnknown when they may or may not have taken effect; any other error means that
    they have not and will not.
    """

    async def enqueue(
        self,
        topic: str,
        payload: bytes = b"",
        *,
        task_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: timedelta | None = None,
        due: datetime | None = None,
        retry_policy: RetryPolicy | None = None,
        on_conflict: OnConflict = OnConflict.FAIL,
        expected_revision: int | None = None,
        debounce_limit: timedelta | None = None,
        timeout_s: float | None = None,
    ) -> Enqueued:
        """Adds one task, due now unless ``delay`` or ``due`` says otherwise.

        Args:
            payload: opaque bytes, at most 1 MiB.
            task_id: 1 to 256 bytes; None: a new UUIDv7. An empty one is refused.
            due: with a time zone.
            expected_revision: with a replacement: only if the task there has this revision.
            debounce_limit: with DEBOUNCE: how long the task may be pushed back in all.

        Raises:
            TaskIdConflict: the id is taken by other content.
            TaskReady, TaskLeased, TaskFinished: the replacement does not apply in this state.
            TopicFull, StoreFull: there was no room until the deadline.
            InvalidArgument, TopicNotFound, RevisionMismatch, OutcomeUnknown
        """
        task = NewTask(
            payload=payload,
            id=task_id,
            headers=headers or {},
            delay=delay,
            due=due,
            retry_policy=retry_policy,
            on_conflict=on_conflict,
            expected_revision=expected_revision,
            debounce_limit=debounce_limit,
        )
        deadline = self._deadline(timeout_s)
        # Repeats of a replacement are known by the request that it was first sent in.
        request_id = None if on_conflict in _BY_ID else ""
        item = self._enqueue_item(topic, task, request_id)
        return await self._call_item(self._enqueues, item, deadline)

    async def enqueue_batch(
        self, topic: str, tasks: Sequence[NewTask], *, timeout_s: float | None = None
    ) -> list[ItemResult[Enqueued]]:
        """Adds any number of tasks to one topic, in requests of up to 1,000 tasks and 3 MiB.

        One result a task, in order; nothing is atomic over them.

        Raises:
            DdqError: all of them failed in the same way, for example InvalidArgument for the
                topic's name.
        """
        deadline = self._deadline(timeout_s)
        request_id = self._new_id()
        return await self._call_batches(
            rpcs.ENQUEUE,
            [self._enqueue_item(topic, task) for task in tasks],
            request=functools.partial(self._enqueues.batch_request, request_id=request_id),
            method=self._enqueues.batch_method,
            read=self._enqueues.value,
            deadline=deadline,
        )

    @functools.cached_property
    def _enqueues(self) -> ItemRpc[pb.BatchEnqueueItem, Enqueued]:
        return ItemRpc(
            rpcs.ENQUEUE,
            pb.BatchEnqueueItem,
            pb.EnqueueRequest,
            self._queue.Enqueue,
            pb.BatchEnqueueRequest,
            self._queue.BatchEnqueue,
            convert.enqueued,
        )

    def _enqueue_item(
        self, topic: str, task: NewTask, request_id: str | None = None
    ) -> Item[pb.BatchEnqueueItem]:
        task_id = convert.given_id("task.id", task.id) or self._new_id()
        message = pb.BatchEnqueueItem(
            task=convert.task_spec(task, task_id),
            on_conflict=pb.OnConflict.ValueType(task.on_conflict),
        )
        if task.expected_revision is not None:
            message.expected_revision = convert.uint("expected_revision", task.expected_revision)
        if task.debounce_limit is not None:
            convert.put_duration(message.debounce_limit, task.debounce_limit)
        if tracing.current is not None:
            tracing.current.create(topic, task_id, message.task.headers)
        return Item(convert.text("topic", topic), task_id, message, request_id)

    async def retrieve(
        self,
        topics: str | Sequence[str],
        *,
        max_tasks: int = 1,
        max_bytes: int = 0,
        lease: timedelta | None = None,
        wait: timedelta | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> list[Lease]:
        """Leases due tasks; an empty list means that nothing was due.

        Args:
            max_tasks: 1 to 1,000.
            max_bytes: bound on payloads and headers together; 0: 3 MiB.
            lease: how long the leases run; None: the topic's default.
            wait: how long to wait for the first task, up to 60 s; comes on top of ``timeout_s``.
            request_id: to repeat a retrieve that ended in OutcomeUnknown and get the leases that
                it was granted; None: a new one.

        Raises:
            InvalidArgument, OutcomeUnknown
        """
        deadline = self._deadline(timeout_s, extra=wait)
        names = [topics] if isinstance(topics, str) else list(topics)
        request = pb.RetrieveRequest(
            topics=[convert.text("topics", name) for name in names],
            max_tasks=convert.uint("max_tasks", max_tasks, bits=32),
            max_bytes=convert.uint("max_bytes", max_bytes),
            request_id=convert.given_id("request_id", request_id) or self._new_id(),
        )
        convert.put_duration(request.lease_duration, lease)
        convert.put_duration(request.wait, wait)
        reply = await self._call(
            rpcs.RETRIEVE, ",".join(names), self._queue.Retrieve, request, deadline
        )
        return [convert.lease(message) for message in reply.tasks]

    async def cancel(
        self,
        topic: str,
        task_id: str,
        *,
        revoke_lease: bool = False,
        timeout_s: float | None = None,
    ) -> Cancelled:
        """Ends a scheduled or ready task; after this it is never delivered again.

        Args:
            revoke_lease: also a leased one: its holder's next extend or ack gets LeaseLost.

        Raises:
            TaskLeased: a worker holds it.
            TaskFinished: it has ended: too late.
            TaskNotFound, TopicNotFound, OutcomeUnknown
        """
        deadline = self._deadline(timeout_s)
        item = self._cancel_item(topic, task_id, revoke_lease=revoke_lease, request_id="")
        return await self._call_item(self._cancels, item, deadline)

    async def cancel_batch(
        self,
        topic: str,
        task_ids: Sequence[str],
        *,
        revoke_lease: bool = False,
        timeout_s: float | None = None,
    ) -> list[ItemResult[Cancelled]]:
        """Like cancel, for any number of tasks of one topic; one result each, in order.

        Raises:
            DdqError: all of them failed in the same way.
        """
        request_id = self._new_id()
        return await self._call_batches(
            rpcs.CANCEL,
            [self._cancel_item(topic, task_id, revoke_lease=revoke_lease) for task_id in task_ids],
            request=functools.partial(self._cancels.batch_request, request_id=request_id),
            method=self._cancels.batch_method,
            read=self._cancels.value,
            deadline=self._deadline(timeout_s),
        )

    @functools.cached_property
    def _cancels(self) -> ItemRpc[pb.BatchCancelItem, Cancelled]:
        return ItemRpc(
            rpcs.CANCEL,
            pb.BatchCancelItem,
            pb.CancelRequest,
            self._queue.Cancel,
            pb.BatchCancelRequest,
            self._queue.BatchCancel,
            convert.cancelled,
        )

    def _cancel_item(
        self, topic: str, task_id: str, *, revoke_lease: bool, request_id: str | None = None
    ) -> Item[pb.BatchCancelItem]:
        message = pb.BatchCancelItem(id=convert.text("id", task_id), revoke_lease=revoke_lease)
        return Item(convert.text("topic", topic), task_id, message, request_id)

    async def reschedule(
        self,
        topic: str,
        task_id: str,
        *,
        delay: timedelta | None = None,
        due: datetime | None = None,
        expected_revision: int | None = None,
        timeout_s: float | None = None,
    ) -> Rescheduled:
        """Gives a scheduled or ready task another due time; neither ``delay`` nor ``due``: now.

        Raises:
            TaskLeased, TaskFinished: too late.
            RevisionMismatch: it is not at ``expected_revision``.
            TaskNotFound, TopicNotFound, OutcomeUnknown
        """
        deadline = self._deadline(timeout_s)
        request = pb.RescheduleRequest(
            topic=convert.text("topic", topic),
            id=convert.text("id", task_id),
            request_id=self._new_id(),
        )
        convert.put_schedule(request, delay, due)
        if expected_revision is not None:
            request.expected_revision = convert.uint("expected_revision", expected_revision)
        reply = await self._call(
            rpcs.RESCHEDULE, f"{topic}/{task_id}", self._queue.Reschedule, request, deadline
        )
        return convert.rescheduled(reply)

    async def get_task(
        self,
        topic: str,
        task_id: str,
        *,
        with_payload: bool = True,
        timeout_s: float | None = None,
    ) -> Task:
        """One task as it is now.

        Raises:
            TaskNotFound, TopicNotFound, TransportError
        """
        request = pb.GetTaskRequest(
            topic=convert.text("topic", topic),
            id=convert.text("id", task_id),
            view=_view(with_payload=with_payload),
        )
        reply = await self._call(
            rpcs.GET_TASK,
            f"{topic}/{task_id}",
            self._queue.GetTask,
            request,
            self._deadline(timeout_s),
        )
        return convert.task(reply.task)

    async def list_tasks(
        self,
        topic: str,
        state: TaskState,
        *,
        with_payload: bool = False,
        page_size: int = 0,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[Task, None]:
        """All tasks in one state, page by page; those that move meanwhile may be missed or doubled.

        Args:
            page_size: tasks of one request, up to 1,000; 0: 100.
            timeout_s: for each page.

        Raises:
            TopicNotFound, TransportError
        """
        request = pb.ListTasksRequest(
            topic=convert.text("topic", topic),
            state=task_pb2.TaskState.ValueType(state),
            page_size=convert.uint("page_size", page_size, bits=32),
            view=_view(with_payload=with_payload),
        )
        while True:
            reply = await self._call(
                rpcs.LIST_TASKS, topic, self._queue.ListTasks, request, self._deadline(timeout_s)
            )
            for message in reply.tasks:
                yield convert.task(message)
            if not reply.next_page_token:
                return
            request.page_token = reply.next_page_token


def _view(*, with_payload: bool) -> task_pb2.TaskView.ValueType:
    return task_pb2.TASK_VIEW_FULL if with_payload else task_pb2.TASK_VIEW_BASIC
