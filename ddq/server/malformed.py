"""Requests whose bytes are not the message that the method takes.

gRPC's own answer to them is UNKNOWN with the name of a Python class, and a traceback in the log for
each. Here they are INVALID_ARGUMENT, and a line in the log now and then, for every service of the
server.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from ddq.errors import InvalidArgument
from ddq.metrics import Metrics, null_metrics
from ddq.server.open_calls import OpenCalls
from ddq.server.status import to_status
from ddq.server.throttled_log import ThrottledLog

log = logging.getLogger(__name__)


class Malformed:
    """Stands for a request that cannot be parsed."""


MALFORMED = Malformed()


class Registrar:
    """Registers services with a server, as the generated functions expect of the server itself.

    Args:
        metrics: where the requests that cannot be parsed are counted.
        calls: where unary calls run.
        streams: where the other ones run.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        metrics: Metrics | None = None,
        calls: OpenCalls | None = None,
        streams: OpenCalls | None = None,
    ) -> None:
        self._server = server
        self._metrics = metrics or null_metrics()
        self._calls = calls or OpenCalls()
        self._streams = streams or OpenCalls()
        self._log = ThrottledLog(log)

    def add_generic_rpc_handlers(
        self, handlers: Sequence[grpc.GenericRpcHandler[Any, Any]]
    ) -> None:
        """Does nothing: the same handlers come to add_registered_method_handlers."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Registers the methods of one service."""
        guarded = {
            name: self._guarded(f"{service}/{name}", name, handler)
            for name, handler in handlers.items()
        }
        generic = grpc.method_handlers_generic_handler(service, guarded)
        self._server.add_generic_rpc_handlers((generic,))

    def _guarded(self, method: str, name: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        """A handler that answers what cannot be parsed, and else does what ``handler`` does."""

        async def refuse(context: Any) -> None:
            error = InvalidArgument(
                f"the request is not a message that {method} takes; was the client generated from "
                "other .proto files?"
            )
            self._metrics.rpcs.labels(name, error.code.name, error.reason).inc()
            self._log.warning(
                method, "a request of %s to %s could not be parsed", context.peer(), method
            )
            await context.abort_with_status(rpc_status.to_status(to_status(error)))

        async def checked(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
            async for request in requests:
                if request is MALFORMED:
                    await refuse(context)
                yield request

        async def unary(request: Any, context: Any) -> Any:
            if request is MALFORMED:
                await refuse(context)
            return await self._calls.run(context, lambda: handler.unary_unary(request, context))

        async def unary_stream(request: Any, context: Any) -> None:
            if request is MALFORMED:
                await refuse(context)
            await self._streams.run(
                context, lambda: _write_all(handler.unary_stream(request, context), context)
            )

        async def stream_stream(requests: AsyncIterator[Any], context: Any) -> None:
            checked_requests = checked(requests, context)
            await self._streams.run(
                context,
                lambda: _write_all(handler.stream_stream(checked_requests, context), context),
            )

        make: Any
        behaviour: Any
        make, behaviour = {
            (False, False): (grpc.unary_unary_rpc_method_handler, unary),
            (False, True): (grpc.unary_stream_rpc_method_handler, unary_stream),
            (True, True): (grpc.stream_stream_rpc_method_handler, stream_stream),
        }[handler.request_streaming, handler.response_streaming]
        guarded: grpc.RpcMethodHandler[Any, Any] = make(
            behaviour,
            request_deserializer=_tolerant(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )
        return guarded


def _tolerant(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parse_or_mark(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return MALFORMED

    return parse_or_mark


async def _write_all(replies: Any, context: Any) -> None:
    """Sends what a handler yields; a handler that is not a generator writes for itself."""
    if hasattr(replies, "__aiter__"):
        async for reply in replies:
            await context.write(reply)
    else:
        await replies
