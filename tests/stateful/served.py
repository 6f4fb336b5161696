"""The same machine against the gRPC service: what the API offers goes through real calls.

The scheduler's part, and what operators do in steps, is asked of the store as before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from ddq.server.new_tasks import task_digest
from ddq.server.notifier import ReadyNotifier
from ddq.server.rpc import CallFactory, servicer
from ddq.server.service import QueueService
from ddq.store.records import content_digest
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import delay_queue_service_pb2_grpc, task_pb2
from models import operations as ops
from tests.stateful.real import _STATUS, TOPIC, Handled, RealShard

_CONFLICTS = {
    "fail": pb.ON_CONFLICT_FAIL,
    "existing": pb.ON_CONFLICT_RETURN_EXISTING,
    "replace_scheduled": pb.ON_CONFLICT_REPLACE_IF_SCHEDULED,
    "replace_finished": pb.ON_CONFLICT_REPLACE_IF_FINISHED,
    "debounce": pb.ON_CONFLICT_DEBOUNCE,
}
_REFUSALS = {"CLOCK_UNSAFE", "REQUEST_EXPIRED"}


class ServedShard(RealShard):
    """A shard behind a server on a socket of its own."""

    def __init__(self, socket: str, replace: Any = None) -> None:
        super().__init__(socket, replace)
        self.wait(self._serve(socket))

    async def _serve(self, socket: str) -> None:
        self._server = grpc.aio.server()
        service = QueueService(self.store, ReadyNotifier(self.store.hints))
        base = delay_queue_service_pb2_grpc.DelayQueueServiceServicer
        adapted = servicer(service, base, CallFactory(self.store.settings, self.clock))
        delay_queue_service_pb2_grpc.add_DelayQueueServiceServicer_to_server(adapted, self._server)
        address = f"unix:{socket}.grpc"
        self._server.add_insecure_port(address)
        await self._server.start()
        self._channel = grpc.aio.insecure_channel(address)
        self.stub: Any = delay_queue_service_pb2_grpc.DelayQueueServiceStub(self._channel)

    def close(self) -> None:
        """Stops the server, then as before."""
        self.wait(self._close())
        super().close()

    async def _close(self) -> None:
        await self._channel.close(None)
        await self._server.stop(None)

    async def _dispatch(self, request: ops.Request) -> tuple[tuple[Any, ...], int]:
        handler = _SERVED.get(type(request.operations[0]))
        if handler is None:
            return await super()._dispatch(request)
        handled: Handled = await handler(self, request.operations, request)
        return handled

    def ask(self, request: ops.Request, now_ms: int) -> ops.Response:
        """Runs a request at a moment; a refusal of the whole call is its status."""
        try:
            return super().ask(request, now_ms)
        except _RefusedError as refused:
            return ops.Response(refused.reason)


class _RefusedError(Exception):
    """The service refused the whole call."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _reason(status: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            return info.reason
    raise AssertionError(f"a status without a reason: {status}")


async def _call(method: Any, message: Any, request: ops.Request) -> Any:
    """One unary call: its reply, or its status."""
    if request.not_after_ms and "not_after" in message.DESCRIPTOR.fields_by_name:
        message.not_after.FromMilliseconds(request.not_after_ms)
    if "request_id" in message.DESCRIPTOR.fields_by_name:
        message.request_id = request.request_id
    try:
        return await method(message, timeout=30)
    except grpc.aio.AioRpcError as error:
        metadata: Any = error.trailing_metadata()
        status = status_pb2.Status()
        status.ParseFromString(dict(metadata)["grpc-status-details-bin"])
        return status


def _single(reply: Any, describe: Callable[[Any], tuple[Any, ...]]) -> Handled:
    if isinstance(reply, status_pb2.Status):
        reason = _reason(reply)
        if reason in _REFUSALS:
            raise _RefusedError(reason)
        return ((_STATUS[reason],),), 0
    return (describe(reply),), reply.receipt.store_time.ToMilliseconds()


def _batch(reply: Any, describe: Callable[[Any], tuple[Any, ...]]) -> Handled:
    if isinstance(reply, status_pb2.Status):
        raise _RefusedError(_reason(reply))
    results, at_ms = [], 0
    for item in reply.results:
        if item.status.code:
            reason = _reason(item.status)
            if reason in _REFUSALS:
                raise _RefusedError(reason)
            results.append((_STATUS[reason],))
        else:
            results.append(describe(item.result))
        at_ms = item.receipt.store_time.ToMilliseconds()
    return tuple(results), at_ms


def task_spec(op: ops.Enqueue) -> task_pb2.TaskSpec:
    """A task as a producer sends it."""
    policy = op.policy
    spec = task_pb2.TaskSpec(
        id=op.id,
        payload=op.content,
        retry_policy=task_pb2.RetryPolicy(
            max_attempts=policy.max_attempts,
            multiplier=policy.multiplier_milli / 1000,
            jitter=policy.jitter_milli / 1000,
        ),
    )
    spec.retry_policy.initial_backoff.FromMilliseconds(policy.initial_backoff_ms)
    spec.retry_policy.max_backoff.FromMilliseconds(policy.max_backoff_ms)
    if op.when.absolute:
        spec.due_time.FromMilliseconds(op.when.value_ms)
    else:
        spec.delay.FromMilliseconds(op.when.value_ms)
    return spec


def digest_of(op: ops.Enqueue) -> bytes:
    """What the tombstone of a task keeps of its content."""
    return task_digest(TOPIC, task_spec(op))


def _enqueued(result: pb.EnqueueResult) -> tuple[Any, ...]:
    return (
        "CREATED" if result.created else "EXISTS", ops.State(result.state), result.revision,
        result.incarnation, result.due_time.ToMilliseconds(),
    )  # fmt: skip


async def _enqueue(
    real: ServedShard, items: Sequence[ops.Enqueue], request: ops.Request
) -> Handled:
    messages = [
        pb.BatchEnqueueItem(
            task=task_spec(op),
            on_conflict=_CONFLICTS[op.on_conflict],
            expected_revision=op.expected_revision,
        )
        for op in items
    ]
    for item, op in zip(messages, items, strict=True):
        if op.on_conflict == "debounce":
            item.debounce_limit.FromMilliseconds(op.limit_ms)
    if len(messages) > 1:
        batch = pb.BatchEnqueueRequest(topic=TOPIC, items=messages)
        return _batch(await _call(real.stub.BatchEnqueue, batch, request), _enqueued)
    message = pb.EnqueueRequest(
        topic=TOPIC,
        task=messages[0].task,
        on_conflict=messages[0].on_conflict,
        expected_revision=items[0].expected_revision,
    )
    if messages[0].HasField("debounce_limit"):
        message.debounce_limit.CopyFrom(messages[0].debounce_limit)
    reply = await _call(real.stub.Enqueue, message, request)
    return _single(reply, lambda answer: _enqueued(answer.result))


async def _retrieve(
    real: ServedShard, items: Sequence[ops.Retrieve], request: ops.Request
) -> Handled:
    (op,) = items
    real.entropy.tokens = deque(op.tokens)
    message = pb.RetrieveRequest(topics=[TOPIC], max_tasks=len(op.tokens))
    message.lease_duration.FromMilliseconds(op.lease_ms)
    reply = await _call(real.stub.Retrieve, message, request)
    real.entropy.tokens.clear()
    if isinstance(reply, status_pb2.Status):
        raise _RefusedError(_reason(reply))
    granted = tuple(
        (lease.task.id, lease.lease_token, lease.lease_expire_time.ToMilliseconds())
        for lease in reply.tasks
    )
    return (("LEASED", 0, granted),), 0


def _simple(kind: str, single: Any, item: Any, describe: Callable[[Any], tuple[Any, ...]]) -> Any:
    """Ack and its kin: the single form for one, the batch form for several."""

    async def handle(real: ServedShard, items: Sequence[Any], request: ops.Request) -> Handled:
        if len(items) == 1:
            message = single(real, items[0])
            reply = await _call(getattr(real.stub, kind), message, request)
            return _single(reply, lambda answer: describe(answer.result))
        batch = getattr(pb, f"Batch{kind}Request")(
            topic=TOPIC, items=[item(real, op) for op in items]
        )
        return _batch(await _call(getattr(real.stub, f"Batch{kind}"), batch, request), describe)

    return handle


def _verdict(op: ops.Nack) -> pb.NackVerdict:
    verdict = pb.NackVerdict(error=op.error, dead_letter=op.dead)
    if op.delay_ms is not None and not op.dead:
        verdict.delay.FromMilliseconds(op.delay_ms)
    return verdict


def _nack_item(real: ServedShard, op: ops.Nack) -> pb.BatchNackItem:
    real.entropy.numbers.append(op.random)
    return pb.BatchNackItem(id=op.id, lease_token=op.token, verdict=_verdict(op))


def _nack_one(real: ServedShard, op: ops.Nack) -> pb.NackRequest:
    real.entropy.numbers = deque([op.random])
    return pb.NackRequest(topic=TOPIC, id=op.id, lease_token=op.token, verdict=_verdict(op))


def _snooze_item(real: ServedShard, op: ops.Snooze) -> pb.BatchSnoozeItem:
    real.store.jobs.snoozes_max_count = op.limit
    item = pb.BatchSnoozeItem(id=op.id, lease_token=op.token)
    item.delay.FromMilliseconds(op.delay_ms)
    return item


def _snooze_one(real: ServedShard, op: ops.Snooze) -> pb.SnoozeRequest:
    real.store.jobs.snoozes_max_count = op.limit
    message = pb.SnoozeRequest(topic=TOPIC, id=op.id, lease_token=op.token)
    message.delay.FromMilliseconds(op.delay_ms)
    return message


def _extend_item(_: ServedShard, op: ops.Extend) -> pb.BatchExtendItem:
    item = pb.BatchExtendItem(id=op.id, lease_token=op.token)
    item.lease_duration.FromMilliseconds(op.lease_ms)
    return item


def _extend_one(_: ServedShard, op: ops.Extend) -> pb.ExtendRequest:
    message = pb.ExtendRequest(topic=TOPIC, id=op.id, lease_token=op.token)
    message.lease_duration.FromMilliseconds(op.lease_ms)
    return message


async def _reschedule(
    real: ServedShard, items: Sequence[ops.Reschedule], request: ops.Request
) -> Handled:
    (op,) = items
    message = pb.RescheduleRequest(topic=TOPIC, id=op.id, expected_revision=op.expected_revision)
    if op.when.absolute:
        message.due_time.FromMilliseconds(op.when.value_ms)
    else:
        message.delay.FromMilliseconds(op.when.value_ms)
    reply = await _call(real.stub.Reschedule, message, request)
    return _single(reply, lambda a: ("OK", a.revision, a.due_time.ToMilliseconds()))


def _view(task: task_pb2.Task) -> tuple[Any, ...]:
    return (
        task.id, ops.State(task.state), task.revision, task.incarnation, task.promotion,
        task.attempt, task.run, task.due_time.ToMilliseconds(), task.last_error,
    )  # fmt: skip


async def _get(real: ServedShard, items: Sequence[ops.Get], request: ops.Request) -> Handled:
    (op,) = items
    reply = await _call(real.stub.GetTask, pb.GetTaskRequest(topic=TOPIC, id=op.id), request)
    return _single(reply, lambda answer: ("OK", _view(answer.task)))


NEXT_DIGEST = content_digest(TOPIC.encode(), b"next", b"")
"""What the tombstone of a next run with a content of its own keeps of that."""


async def _run_again(
    real: ServedShard, items: Sequence[ops.RunAgain], request: ops.Request
) -> Handled:
    (op,) = items
    message = pb.RunAgainRequest(topic=TOPIC, id=op.id, lease_token=op.token)
    if op.when.absolute:
        message.next.due_time.FromMilliseconds(op.when.value_ms)
    else:
        message.next.delay.FromMilliseconds(op.when.value_ms)
    if op.content is not None:
        message.next.content.payload = op.content
    reply = await _call(real.stub.RunAgain, message, request)
    return _single(
        reply, lambda a: ("OK", a.result.incarnation, a.result.due_time.ToMilliseconds())
    )


_SERVED: dict[type, Any] = {
    ops.Enqueue: _enqueue,
    ops.Retrieve: _retrieve,
    ops.Ack: _simple(
        "Ack",
        lambda _, op: pb.AckRequest(topic=TOPIC, id=op.id, lease_token=op.token),
        lambda _, op: pb.BatchAckItem(id=op.id, lease_token=op.token),
        lambda result: ("OK", result.revision),
    ),
    ops.Release: _simple(
        "Release",
        lambda _, op: pb.ReleaseRequest(topic=TOPIC, id=op.id, lease_token=op.token),
        lambda _, op: pb.BatchReleaseItem(id=op.id, lease_token=op.token),
        lambda result: ("OK", result.revision),
    ),
    ops.Extend: _simple(
        "Extend",
        _extend_one,
        _extend_item,
        lambda r: ("OK", r.revision, r.lease_expire_time.ToMilliseconds()),
    ),
    ops.Snooze: _simple(
        "Snooze",
        _snooze_one,
        _snooze_item,
        lambda r: ("OK", r.revision, r.due_time.ToMilliseconds()),
    ),
    ops.Nack: _simple(
        "Nack",
        _nack_one,
        _nack_item,
        lambda r: (
            "OK", ops.State(r.state), r.revision,
            r.due_time.ToMilliseconds() if r.HasField("due_time") else 0,
        ),
    ),
    ops.Cancel: _simple(
        "Cancel",
        lambda _, op: pb.CancelRequest(topic=TOPIC, id=op.id, revoke_lease=op.revoke),
        lambda _, op: pb.BatchCancelItem(id=op.id, revoke_lease=op.revoke),
        lambda r: ("ALREADY" if r.already_cancelled else "CANCELLED", r.revision, r.incarnation),
    ),
    ops.RunAgain: _run_again,
    ops.Reschedule: _reschedule,
    ops.Get: _get,
}  # fmt: skip
