"""What stands between gRPC and the handlers of every service of the server.

It asks the guard and the admission, ends calls whose requests do not arrive, and answers requests
whose bytes are not the message that the method takes. gRPC's own answer to those is UNKNOWN with
the name of a Python class, and a traceback in the log for each; here they are INVALID_ARGUMENT, and
a line in the log now and then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc.aio import EOF  # type: ignore[attr-defined]

from ddq.access import Caller, Guard, Waiting
from ddq.errors import InvalidArgument
from ddq.metrics import Metrics, null_metrics
from ddq.server.admission import Admission, RefusingHandler
from ddq.server.ending import abort, abort_with
from ddq.server.guarding import MethodGuard
from ddq.server.open_calls import OpenCalls
from ddq.server.throttled_log import ThrottledLog

log = logging.getLogger(__name__)


class Malformed:
    """Stands for a request that cannot be parsed."""


MALFORMED = Malformed()


class Registrar:
    """Registers services with a server, as the generated functions expect of the server itself.

    Args:
        admission: what is asked before a call begins.
        metrics: where the requests that cannot be parsed are counted.
        calls: where unary calls run.
        streams: where the other ones run.
        guard: decides who may do what; None: every client may do everything.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        admission: Admission,
        metrics: Metrics | None = None,
        calls: OpenCalls | None = None,
        streams: OpenCalls | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._server = server
        self.admission = admission
        self.metrics = metrics or null_metrics()
        self.calls = calls or OpenCalls()
        self.streams = streams or OpenCalls()
        self.guard = guard
        self.log = ThrottledLog(log)

    def add_generic_rpc_handlers(
        self, handlers: Sequence[grpc.GenericRpcHandler[Any, Any]]
    ) -> None:
        """Does nothing: the same handlers come to add_registered_method_handlers."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Registers the methods of one service."""
        guarded = {
            f"/{service}/{name}": GuardedMethod(self, service, name, handler).handler()
            for name, handler in handlers.items()
        }
        self._server.add_generic_rpc_handlers((RefusingHandler(guarded, self.admission),))


class GuardedMethod:
    """One method of a service, which does what ``handler`` does where nothing is wrong."""

    def __init__(self, registrar: Registrar, service: str, name: str, handler: Any) -> None:
        self._path = f"{service}/{name}"
        self._name = name
        self._handler = handler
        self._guard = MethodGuard(self._path, registrar.guard, registrar.metrics)
        self._admission = registrar.admission
        self._calls = registrar.calls
        self._streams = registrar.streams
        self._metrics = registrar.metrics
        self._log = registrar.log
        # gRPC parses a message and continues in its handler in one step of the event loop.
        self._size_bytes = 0

    def handler(self) -> grpc.RpcMethodHandler[Any, Any]:
        """What gRPC is given.

        A request that is not a stream is read by the method itself, which is the same on the wire:
        only so a call whose request does not come can be ended.
        """
        make: Any
        behaviour: Any
        make, behaviour = {
            (False, False): (grpc.stream_unary_rpc_method_handler, self._unary),
            (False, True): (grpc.stream_stream_rpc_method_handler, self._unary_stream),
            (True, True): (grpc.stream_stream_rpc_method_handler, self._stream_stream),
        }[self._handler.request_streaming, self._handler.response_streaming]
        guarded: grpc.RpcMethodHandler[Any, Any] = make(
            behaviour, request_deserializer=self._parse, response_serializer=self._serialize
        )
        return guarded

    def _parse(self, data: bytes) -> Any:
        self._size_bytes = len(data)
        try:
            return self._handler.request_deserializer(data)
        except DecodeError:
            return MALFORMED

    def _serialize(self, reply: Any) -> bytes:
        data: bytes = self._handler.response_serializer(reply)
        self._admission.sends(len(data))
        return data

    # The forms of a call ------------------------------------------------------------------------

    async def _unary(self, _: AsyncIterator[Any], context: Any) -> Any:
        request = await self._request(context)

        async def run(peer: str) -> Any:
            reply = await self._calls.run(
                context,
                lambda: self._guard.watched(
                    context, request, lambda _: self._handler.unary_unary(request, context)
                ),
            )
            self._admission.sending(peer)
            return reply

        return await self._held(context, run)

    async def _unary_stream(self, _: AsyncIterator[Any], context: Any) -> None:
        request = await self._request(context)

        async def run(peer: str) -> None:
            timed = _TimedWrites(context, self._admission, peer)
            await self._streams.run(
                context, lambda: _write_all(self._handler.unary_stream(request, timed), timed)
            )

        await self._held(context, run)

    async def _stream_stream(self, requests: AsyncIterator[Any], context: Any) -> None:
        async def run(peer: str) -> None:
            timed = _TimedWrites(context, self._admission, peer)

            async def serve(call: Waiting | None) -> None:
                checked = self._checked(requests, context, caller, call)
                await _write_all(self._handler.stream_stream(checked, timed), timed)

            try:
                await self._streams.run(context, lambda: self._guard.watched(context, None, serve))
            except InvalidArgument as error:
                # Handlers of ddq have answered it by now, others let it through.
                self._metrics.rpcs.labels(self._name, error.code.name, error.reason).inc()
                await abort(context, error)

        caller = await self._guard.caller(context)
        await self._held(context, run)

    # What they share ----------------------------------------------------------------------------

    async def _request(self, context: Any) -> Any:
        """The request of a call that has one, and is allowed."""
        # Before the request is read: that of a caller that is not known costs nothing.
        caller = await self._guard.caller(context)
        try:
            request = await context.read()
        except asyncio.CancelledError:
            if not self._admission.is_stalled():
                raise
            await self._end_stalled(context)
        self._admission.received()
        if request is MALFORMED or request is EOF:
            error = self._malformed(context)
            self._metrics.rpcs.labels(self._name, error.code.name, error.reason).inc()
            await abort(context, error)
        if denied := self._guard.denied(context, caller, request):
            await abort(context, denied)
        return request

    async def _checked(
        self,
        requests: AsyncIterator[Any],
        context: Any,
        caller: Caller | None,
        call: Waiting | None,
    ) -> AsyncIterator[Any]:
        """The requests of a stream.

        Raises:
            InvalidArgument: one that cannot be parsed.
            PermissionDenied: the caller may not ask for that; the handler ends the call.
        """
        async for request in requests:
            self._admission.received()
            if request is MALFORMED:
                raise self._malformed(context)
            if denied := self._guard.denied(context, caller, request):
                raise denied
            self._guard.subscribed(call, request)
            yield request

    async def _held(self, context: Any, run: Callable[[str], Awaitable[Any]]) -> Any:
        """Runs a call, which is given its peer, if there is room for it."""
        peer, size_bytes = context.peer(), self._size_bytes
        if error := self._admission.hold(self._name, peer, size_bytes):
            await abort(context, error)
        try:
            return await run(peer)
        except asyncio.CancelledError:
            if not self._admission.is_stalled():
                raise
            await self._end_stalled(context)
        finally:
            self._admission.let_go(peer, size_bytes)

    def _malformed(self, context: Any) -> InvalidArgument:
        self._log.warning(
            self._path,
            "a request of %(peer)s to %(method)s could not be parsed",
            {"peer": context.peer(), "method": self._path},
        )
        return InvalidArgument(
            f"the request is not a message that {self._path} takes; was the client generated from "
            "other .proto files?"
        )

    async def _end_stalled(self, context: Any) -> NoReturn:
        code = grpc.StatusCode.DEADLINE_EXCEEDED
        self._metrics.rpcs.labels(self._name, code.name, "").inc()
        await abort_with(context, code, "the request did not arrive in time; nothing was done")


class _TimedWrites:
    """The context of a stream whose writes are transfers, which the admission may end."""

    def __init__(self, context: Any, admission: Admission, peer: str) -> None:
        self._context = context
        self._admission = admission
        self._peer = peer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, message: Any) -> None:
        """Sends a part of the reply; returns when the connection has room for it."""
        self._admission.sending(self._peer)
        await self._context.write(message)
        self._admission.sent()


async def _write_all(replies: Any, context: Any) -> None:
    """Sends what a handler yields; a handler that is not a generator writes for itself."""
    if hasattr(replies, "__aiter__"):
        async for reply in replies:
            await context.write(reply)
    else:
        await replies
