"""What reads bytes from outside, one entry each: requests, page tokens, records, hints, statuses.

A decoder may answer with the errors that it documents, and with nothing else. Tests run ``check``
with drawn bytes; `make fuzz-decoders` (guided.py) looks for the bytes by the branches they reach.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2

from ddq.client.status import failure_of_status
from ddq.config import Settings
from ddq.entropy import SystemClock, SystemEntropy
from ddq.errors import DdqError
from ddq.server import wire
from ddq.server.admin import AdminService
from ddq.server.service import QueueService
from ddq.store.hints import parse_hint
from ddq.store.records import unpack_task
from ddq.store.runner import Call
from ddq.store.topic_records import unpack_topic
from ddq.task import TopicSettings
from tests.fuzz.calls import METHODS


class ReachedStoreError(Exception):
    """The request was read, and the store would be asked now."""


class _Unreachable:
    """Stands for a part of the store: every method of it raises ReachedStoreError."""

    def __init__(self, **known: Any) -> None:
        vars(self).update(known)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def reached(*_: Any, **__: Any) -> Any:
            raise ReachedStoreError(name)

        return reached


def _services() -> dict[str, Any]:
    store: Any = SimpleNamespace(
        clock=SystemClock(),
        entropy=SystemEntropy(),
        settings=Settings(),
        jobs=_Unreachable(),
        topics=_Unreachable(default_settings=TopicSettings()),
        directory=_Unreachable(),
        scheduler=_Unreachable(),
        operator=_Unreachable(),
        router=SimpleNamespace(topology=_Unreachable()),
        hints=_Unreachable(),
    )
    notifier: Any = _Unreachable()
    queue: Any = QueueService(store, notifier)
    queue._retrieval = _Unreachable()
    return {
        "DelayQueueService": queue,
        "DelayQueueAdminService": AdminService(store),
    }


_SERVICES = _services()
_CALL = Call(deadline_s=1e12, not_after_ms=2**52, request_id="")
_UNARY = [method for method in METHODS if not method.client_streaming]


def _snake(name: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name).lstrip("_")


def _request(data: bytes) -> None:
    """A request of some RPC, as far as its handler reads it before it asks the store."""
    method = _UNARY[data[0] % len(_UNARY)] if data else _UNARY[0]
    try:
        message = GetMessageClass(method.input_type).FromString(data[1:])
    except DecodeError:
        return
    handler = getattr(_SERVICES[method.containing_service.name], _snake(method.name))
    _run(handler(message, _CALL))


def _run(handling: Coroutine[Any, Any, Any]) -> None:
    """Runs a handler up to its first wait."""
    try:
        handling.send(None)
    except (ReachedStoreError, StopIteration):
        pass
    finally:
        handling.close()


def _token(data: bytes) -> None:
    wire.cursor(data.decode(errors="replace"))


def _task(data: bytes) -> None:
    cut = data[0] if data else 0
    state, payload = data[1 : 1 + cut], data[1 + cut :]
    unpack_task("topic", "id", payload, state, policies=data[:40])


def _topic(data: bytes) -> None:
    unpack_topic("topic", data)


def _hint(data: bytes) -> None:
    parse_hint(data)


def _status(data: bytes) -> None:
    try:
        status = status_pb2.Status.FromString(data)
    except DecodeError:
        return
    failure_of_status(status)


DECODERS: tuple[Callable[[bytes], None], ...] = (
    _request, _request, _request, _request, _token, _task, _topic, _hint, _status,
)  # fmt: skip


def check(data: bytes) -> None:
    """Has the decoder that the first byte chooses read the others.

    Raises:
        Exception: one that the decoder does not document.
    """
    if not data:
        return
    with contextlib.suppress(DdqError):
        DECODERS[data[0] % len(DECODERS)](data[1:])
