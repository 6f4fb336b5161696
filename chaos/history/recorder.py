"""A client that records each request and its reply.

    async with Client(address) as client:
        worker = Recorder(writer, client, "3")
        for lease in await worker.retrieve("mail"):
            await worker.ack(lease)

Whether an error means "it did not happen" is the error's own property, ``definite``. Anything else,
a cancelled call included, is ``info``: the operation may take effect at any later time, so what
this recorder does next is a new process's (3, 3.1, 3.2, ...), as in Jepsen.
"""

from __future__ import annotations

import functools
import inspect
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import fields
from types import SimpleNamespace
from typing import Any, Concatenate, ParamSpec, TypeVar

from chaos.history import convert
from chaos.history.convert import ms
from chaos.history.operations import (
    CUT_OFF,
    READS,
    Cancel,
    Counted,
    CreateTopic,
    DeleteDead,
    Extend,
    Failed,
    Get,
    List,
    Nack,
    Redrive,
    Reschedule,
    Retrieve,
    Retrieved,
    RunAgain,
    Settle,
    Snooze,
    Topic,
    Value,
    digest,
)
from chaos.history.reader import Type
from chaos.history.writer import HistoryWriter
from ddq import client as ddq
from ddq.client import Client
from ddq.errors import DdqError

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")

Arguments = SimpleNamespace
"""What a method was called with, by the names of its parameters, defaults included."""


def _recorded(
    method: Callable[Concatenate[Client, P], Coroutine[Any, Any, R]],
    op: str,
    request: Callable[[Arguments], Value],
    reply: Callable[[R], Value],
    **missing: Callable[[], object],
) -> Callable[Concatenate[Recorder, P], Coroutine[Any, Any, R]]:
    """The client's method, recorded.

    Args:
        op: its name in a history.
        request, reply: what the history keeps of them.
        missing: parameter → what makes its value where the caller gives none.
    """
    bind = _binder(method, missing)

    @functools.wraps(method)
    async def call(self: Recorder, /, *args: P.args, **kwargs: P.kwargs) -> R:
        bound = bind(self, *args, **kwargs)
        asked = request(Arguments(**bound.arguments))
        return await self.record(op, asked, lambda: self.forward(method, bound), reply)

    return call


def _recorded_batch(
    method: Callable[Concatenate[Client, P], Coroutine[Any, Any, list[ddq.ItemResult[V]]]],
    op: str,
    requests: Callable[[Arguments], Sequence[Value]],
    reply: Callable[[V], Value],
) -> Callable[Concatenate[Recorder, P], Coroutine[Any, Any, list[ddq.ItemResult[V]]]]:
    """The client's method for several items, recorded as one batch of ``op``."""
    bind = _binder(method, {})

    @functools.wraps(method)
    async def call(self: Recorder, /, *args: P.args, **kwargs: P.kwargs) -> list[ddq.ItemResult[V]]:
        bound = bind(self, *args, **kwargs)
        items = requests(Arguments(**bound.arguments))
        return await self.record_batch(op, items, lambda: self.forward(method, bound), reply)

    return call


def _binder(
    method: Callable[..., object], missing: dict[str, Callable[[], object]]
) -> Callable[..., inspect.BoundArguments]:
    signature = inspect.signature(method)

    def bind(*args: object, **kwargs: object) -> inspect.BoundArguments:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        for name, make in missing.items():
            if bound.arguments[name] is None:
                bound.arguments[name] = make()
        return bound

    return bind


class Recorder:
    """One logical process: it does one thing at a time.

    Its methods are the client's, with the same parameters, results and errors.

    Args:
        process: its number or name, without a dot.
    """

    def __init__(self, writer: HistoryWriter, client: Client, process: str) -> None:
        self._writer = writer
        self._client = client
        self._name = process
        self._lives = 0
        self._busy = False
        self.unknowns = 0

    @property
    def process(self) -> str:
        """The name it has at present."""
        return f"{self._name}.{self._lives}" if self._lives else self._name

    def forward(
        self, method: Callable[..., Awaitable[V]], bound: inspect.BoundArguments
    ) -> Awaitable[V]:
        """Calls the method of that name of the client behind it."""
        call: Callable[..., Awaitable[V]] = getattr(self._client, method.__name__)
        return call(*bound.args[1:], **bound.kwargs)

    async def record(
        self,
        op: str,
        request: Value,
        call: Callable[[], Awaitable[V]],
        reply: Callable[[V], Value],
    ) -> V:
        """Makes a call between two events.

        Raises:
            RuntimeError: the process is in the middle of another call.
        """
        if self._busy:
            raise RuntimeError(f"process {self.process} is asked for {op} while it does another")
        self._busy = True
        self._writer.event(self.process, "invoke", op, request=request)
        try:
            value = await call()
        except DdqError as error:
            certain = error.definite or op in READS
            self._end("fail" if certain else "info", op, Failed(error.reason, str(error)[:200]))
            raise
        except BaseException as error:
            # A worker that is cut off in the middle leaves a request behind it.
            self._end("info", op, Failed(CUT_OFF, type(error).__name__))
            raise
        finally:
            self._busy = False
        self._end("ok", op, reply(value))
        return value

    async def record_batch(
        self,
        op: str,
        items: Sequence[Value],
        call: Callable[[], Awaitable[list[ddq.ItemResult[V]]]],
        reply: Callable[[V], Value],
    ) -> list[ddq.ItemResult[V]]:
        """Makes a call for several items between two events."""
        results = await self.record(
            f"{op}_batch",
            convert.of_batch(items),
            call,
            lambda results: convert.of_batch([_item(result, reply) for result in results]),
        )
        if any(result.error is not None and not result.error.definite for result in results):
            # Part of it may take effect later: what follows is another process's.
            self._lives += 1
            self.unknowns += 1
        return results

    def _end(self, outcome: Type, op: str, reply: Value) -> None:
        self._writer.event(self.process, outcome, op, reply=reply)
        if outcome == "info":
            self._lives += 1
            self.unknowns += 1

    # Producers -------------------------------------------------------------------------------

    enqueue = _recorded(Client.enqueue, "enqueue", convert.enqueue_request, convert.enqueued)
    enqueue_batch = _recorded_batch(
        Client.enqueue_batch,
        "enqueue",
        lambda given: [convert.new_task(given.topic, task) for task in given.tasks],
        convert.enqueued,
    )
    cancel = _recorded(
        Client.cancel,
        "cancel",
        lambda given: Cancel(given.topic, given.task_id, given.revoke_lease),
        convert.cancelled,
    )
    cancel_batch = _recorded_batch(
        Client.cancel_batch,
        "cancel",
        lambda given: [Cancel(given.topic, each, given.revoke_lease) for each in given.task_ids],
        convert.cancelled,
    )
    reschedule = _recorded(
        Client.reschedule,
        "reschedule",
        lambda given: Reschedule(
            given.topic, given.task_id, ms(given.delay), ms(given.due), given.expected_revision
        ),
        convert.rescheduled,
    )
    get_task = _recorded(
        Client.get_task,
        "get",
        lambda given: Get(given.topic, given.task_id),
        convert.seen_value,
    )

    async def enqueue_task(
        self, topic: str, task: ddq.NewTask, *, timeout_s: float | None = None
    ) -> ddq.Enqueued:
        """``enqueue`` of a task with its settings; it must have an id."""
        settings = {field.name: getattr(task, field.name) for field in fields(task)}
        settings["task_id"] = settings.pop("id")
        return await self.enqueue(topic, timeout_s=timeout_s, **settings)

    # Workers ---------------------------------------------------------------------------------

    retrieve = _recorded(
        Client.retrieve,
        "retrieve",
        lambda given: Retrieve(
            [given.topics] if isinstance(given.topics, str) else list(given.topics),
            given.request_id,
            given.max_tasks,
            ms(given.lease),
            ms(given.wait) or 0,
        ),
        lambda leases: Retrieved([convert.lease_value(lease) for lease in leases]),
        request_id=lambda: secrets.token_hex(8),
    )
    ack = _recorded(Client.ack, "ack", lambda given: _lease(Settle, given.lease), convert.settled)
    ack_batch = _recorded_batch(
        Client.ack_batch,
        "ack",
        lambda given: [_lease(Settle, lease) for lease in given.leases],
        convert.settled,
    )
    run_again = _recorded(
        Client.run_again,
        "run_again",
        lambda given: _lease(
            RunAgain,
            given.lease,
            ms(given.delay),
            ms(given.due),
            None if given.payload is None else digest(given.payload),
        ),
        convert.ran_again,
    )
    nack = _recorded(
        Client.nack,
        "nack",
        lambda given: _lease(Nack, given.lease, ms(given.delay), given.dead_letter),
        convert.nacked,
    )
    nack_batch = _recorded_batch(
        Client.nack_batch,
        "nack",
        lambda given: [
            _lease(Nack, lease, ms(given.delay), given.dead_letter) for lease in given.leases
        ],
        convert.nacked,
    )
    extend = _recorded(
        Client.extend,
        "extend",
        lambda given: _lease(Extend, given.lease, ms(given.duration)),
        convert.extended,
    )
    extend_batch = _recorded_batch(
        Client.extend_batch,
        "extend",
        lambda given: [_lease(Extend, lease, ms(given.duration)) for lease in given.leases],
        convert.extended,
    )
    release = _recorded(
        Client.release, "release", lambda given: _lease(Settle, given.lease), convert.settled
    )
    release_batch = _recorded_batch(
        Client.release_batch,
        "release",
        lambda given: [_lease(Settle, lease) for lease in given.leases],
        convert.settled,
    )
    snooze = _recorded(
        Client.snooze,
        "snooze",
        lambda given: _lease(Snooze, given.lease, ms(given.delay) or 0),
        convert.snoozed,
    )

    # Operators -------------------------------------------------------------------------------

    redrive = _recorded(
        Client.redrive,
        "redrive",
        lambda given: Redrive(given.topic, list(given.task_ids or ())),
        lambda done: Counted(done.count),
    )
    delete_dead = _recorded(
        Client.delete_dead,
        "delete_dead",
        lambda given: DeleteDead(given.topic, given.task_id, given.expected_revision),
        convert.settled,
    )
    purge_topic = _recorded(Client.purge_topic, "purge", lambda given: Topic(given.name), Counted)
    pause_topic = _recorded(
        Client.pause_topic, "pause", lambda given: Topic(given.name), lambda _: Value()
    )
    resume_topic = _recorded(
        Client.resume_topic, "resume", lambda given: Topic(given.name), lambda _: Value()
    )

    create_topic = _recorded(
        Client.create_topic,
        "create_topic",
        lambda given: CreateTopic(given.name, given.shards),
        lambda _: Value(),
    )
    delete_topic = _recorded(
        Client.delete_topic, "delete_topic", lambda given: Topic(given.name), Counted
    )

    async def list_tasks(
        self,
        topic: str,
        state: ddq.TaskState,
        *,
        page_size: int = 0,
        timeout_s: float | None = None,
    ) -> list[ddq.Task]:
        """All pages of Client.list_tasks, as one look."""

        async def listed() -> list[ddq.Task]:
            pages = self._client.list_tasks(topic, state, page_size=page_size, timeout_s=timeout_s)
            return [task async for task in pages]

        request = List(topic, convert.state_name(state))
        return await self.record("list", request, listed, convert.listed)

    stats = _recorded(Client.stats, "stats", lambda given: Topic(given.topic), convert.stats_value)


def _lease(kind: Callable[..., Value], lease: ddq.LeaseRef, *settings: object) -> Value:
    """A request that proves its right by a lease's token."""
    return kind(lease.topic, lease.id, lease.token.hex(), *settings)


def _item(result: ddq.ItemResult[V], reply: Callable[[V], Value]) -> dict[str, Any]:
    if result.error is not None:
        return {
            "type": "fail" if result.error.definite else "info",
            "error": result.error.reason,
            "message": str(result.error)[:200],
        }
    return {"type": "ok", "reply": reply(result.unwrap())}


__all__ = ["Recorder"]
