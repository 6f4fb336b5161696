"""Between gRPC and the handlers: deadlines, not_after, errors, and what runs at once."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from ddq import logs, tracing
from ddq.config import MS_PER_SECOND, Settings
from ddq.durations import exact_span_text, moment_text
from ddq.entropy import Clock
from ddq.errors import DdqError, InvalidArgument
from ddq.metrics import Metrics, null_metrics
from ddq.server import validation as check
from ddq.server.ending import abort, abort_with
from ddq.server.throttled_log import ThrottledLog
from ddq.server.validation import Problems
from ddq.store.runner import Call

log = logging.getLogger(__name__)
throttled = ThrottledLog(log)

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Handler = Callable[[Any, Call], Awaitable[Any]]


REPLY_MARGIN_S = 0.1
"""The store has to have answered so much before a call's deadline: a reply, or an error that says
what is known, would otherwise miss its caller, which learns only that the deadline has passed."""
REPLY_MARGIN_SHARE = 0.1
"""The margin of a short deadline, as a share of it."""


SETTLE_S = 0.03
"""If no handler is called for so long, gRPC has handed over every call that had arrived."""


STREAMS = frozenset({"StreamRetrieve"})
"""RPCs whose handlers read requests and write replies by themselves."""


class CallFactory:
    """Makes a Call from what a request and its transport say about time."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    def make(self, request: Any, remaining_s: float | None) -> Call:
        """The call's deadline, and its not_after, filled from the deadline if it has none.

        Raises:
            InvalidArgument: not_after is further ahead than max_request_age.
        """
        margin_s = 0.0
        if remaining_s is None:
            remaining_s = self._settings.default_request_timeout_ms / MS_PER_SECOND
        else:
            margin_s = min(REPLY_MARGIN_S, REPLY_MARGIN_SHARE * remaining_s)
        now_ms = self._clock.now_ms()
        latest_ms = now_ms + self._settings.max_request_age_ms
        not_after_ms = min(now_ms + round(remaining_s * MS_PER_SECOND), latest_ms)
        if "not_after" in request.DESCRIPTOR.fields_by_name and request.HasField("not_after"):
            problems = Problems()
            not_after_ms = check.timestamp_ms(problems, request.not_after, "not_after")
            if not_after_ms > latest_ms + self._settings.max_clock_skew_ms:
                problems.add(
                    "not_after",
                    f"is more than {exact_span_text(self._settings.max_request_age_ms)} ahead of "
                    f"this server's clock, which says {moment_text(now_ms)}: longer than the store "
                    "remembers; give an earlier one, or set the clock right that is wrong",
                )
            try:
                problems.raise_if_any()
            except InvalidArgument as error:
                # From which a caller learns whether its own clock is wrong.
                error.metadata["server_time_ms"] = str(now_ms)
                raise
        return Call(
            deadline_s=asyncio.get_running_loop().time() + remaining_s - margin_s,
            # 0 would mean "no bound", and a not_after of 1970 is one that has passed.
            not_after_ms=max(not_after_ms, 1),
            request_id=getattr(request, "request_id", ""),
        )


class RunningCalls:
    """The calls whose handlers run now."""

    def __init__(self) -> None:
        self._count = 0
        self._begun_count = 0
        self._ended = asyncio.Event()
        self._ended.set()
        self._released: asyncio.Event | None = None

    def __enter__(self) -> None:
        self._count += 1
        self._begun_count += 1
        self._ended.clear()

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if not self._count:
            self._ended.set()

    async def end(self) -> None:
        """Waits until none runs."""
        await self._ended.wait()

    def hold(self) -> None:
        """Keeps all replies back until ``release``."""
        self._released = asyncio.Event()

    def release(self) -> None:
        """Lets the replies go."""
        if self._released is not None:
            self._released.set()

    async def may_reply(self) -> None:
        """Returns at once, unless replies are kept back."""
        if self._released is not None:
            await self._released.wait()

    async def settle(self, timeout_s: float) -> None:
        """Waits until no call has begun for SETTLE_S, or the time is over."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + timeout_s
        while (left_s := end_s - loop.time()) > 0:
            before = self._begun_count
            await asyncio.sleep(min(SETTLE_S, left_s))
            if self._begun_count == before:
                return


def servicer(
    service: object,
    base: type,
    calls: CallFactory,
    metrics: Metrics | None = None,
    running: RunningCalls | None = None,
) -> Any:
    """An instance of a generated servicer class whose methods call the handlers of ``service``.

    Enqueue is handled by ``enqueue``, BatchAck by ``batch_ack`` and so on.

    Raises:
        AttributeError: the service lacks a handler for one of the RPCs.
    """
    metrics = metrics or null_metrics()
    running = running or RunningCalls()
    names = [name for name in vars(base) if not name.startswith("_")]
    for name in names:
        # It is there before it happens, so that an alert sees it grow.
        metrics.rpcs.labels(name, grpc.StatusCode.INTERNAL.name, "")
    paths = f"ddq.v1.{base.__name__.removesuffix('Servicer')}"

    def adapted(name: str) -> Callable[..., Awaitable[Any]]:
        handler = getattr(service, _snake(name))
        if name in STREAMS:
            return _adapt_stream(name, handler, calls, metrics, running)
        return _adapt(name, handler, calls, metrics, running, path=f"{paths}/{name}")

    methods = {name: staticmethod(adapted(name)) for name in names}
    return type(f"Adapted{base.__name__}", (base,), methods)()


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _adapt(
    name: str,
    handler: Handler,
    calls: CallFactory,
    metrics: Metrics,
    running: RunningCalls,
    *,
    path: str,
) -> Callable[..., Awaitable[Any]]:
    async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        call = calls.make(request, context.time_remaining())
        return await handler(request, call)

    async def method(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        logs.request.set(logs.Request(name, request))
        with running, metrics.rpc(name):
            if tracing.current is None:
                return await _answer(
                    name, lambda: handle(request, context), context, metrics, running
                )
            with tracing.current.serve(path, context.invocation_metadata()):
                return await _answer(
                    name, lambda: handle(request, context), context, metrics, running
                )

    return method


def _adapt_stream(
    name: str, handler: Any, calls: CallFactory, metrics: Metrics, running: RunningCalls
) -> Callable[..., Awaitable[Any]]:
    async def method(requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        logs.request.set(logs.Request(name))
        with running, metrics.rpc(name):
            await _answer(
                name, lambda: handler(requests, context.write, calls), context, metrics, running
            )

    return method


async def _answer(
    name: str,
    handle: Callable[[], Awaitable[Any]],
    context: grpc.aio.ServicerContext[Any, Any],
    metrics: Metrics,
    running: RunningCalls,
) -> Any:
    """What ``handle`` returns; ends the call with a status where it raises."""

    def ended(code: grpc.StatusCode, reason: str = "") -> None:
        metrics.rpcs.labels(name, code.name, reason).inc()
        if tracing.current is not None:
            tracing.current.ended(code, reason)

    try:
        reply = await handle()
        ended(grpc.StatusCode.OK)
        await running.may_reply()
        return reply
    except asyncio.CancelledError:
        # The caller is gone, or its deadline has passed.
        ended(grpc.StatusCode.CANCELLED)
        raise
    except DdqError as error:
        ended(error.code, error.reason)
        await running.may_reply()
        await abort(context, error)
    except Exception as error:  # noqa: BLE001 - it is logged
        ended(grpc.StatusCode.INTERNAL)
        # A mistake of ours: the caller learns that the outcome is unknown, the log says where.
        # Once in a while, since a caller may be able to repeat it at will.
        throttled.exception((name, type(error)), "%(method)s failed", {"method": name})
        await abort_with(context, grpc.StatusCode.INTERNAL, "internal error; see the server's log")
