"""The method that streams leases, and one StreamRetrieve over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, cast

import grpc
import grpc.aio

from ddq.client import convert
from ddq.client.calls import check_topics
from ddq.client.leases import LeaseCalls
from ddq.client.status import AttemptFailedError, failure_of_rpc_error, transport_failure
from ddq.client.streaming import POLL_S, STREAM_MAX_BYTES, LeaseStream, StreamCall
from ddq.client.tasks import TaskCalls
from ddq.config import LIMITS
from ddq.v1 import delay_queue_service_pb2 as pb


class StreamCalls(TaskCalls, LeaseCalls):
    """Leases that arrive as tasks become ready."""

    def stream_retrieve(
        self,
        topics: str | Sequence[str],
        *,
        lease: timedelta | None = None,
        max_bytes: int = STREAM_MAX_BYTES,
        poll: timedelta = timedelta(seconds=POLL_S),
        on_change: Callable[[], None] | None = None,
    ) -> LeaseStream:
        """Leases due tasks as they become ready, as far as the reader gives credit.

        Nothing is leased before the first ``add_credit``. See LeaseStream.

        Args:
            topics: one or up to 16.
            lease: how long the leases run; None: the topic's default.
            max_bytes: payloads and headers that may be on their way, up to 64 MiB.
            poll: how long one Retrieve waits where the server has no StreamRetrieve, up to 60 s.
            on_change: called in the client's event loop when something has arrived.

        Raises:
            InvalidArgument: ``max_bytes`` is out of bounds; what the server refuses is raised when
                the stream is read.
        """
        if not 0 < max_bytes <= LIMITS.stream_credit_max_bytes:
            most = LIMITS.stream_credit_max_bytes
            raise convert.refused("max_bytes", f"is {max_bytes}; give 1 to {most}")
        return LeaseStream(
            self,
            check_topics(topics),
            self._new_id,
            lease=lease,
            max_bytes=max_bytes,
            poll=poll,
            on_change=on_change or _nothing,
        )

    async def open_stream(self) -> StreamCall:
        """Begins a StreamRetrieve of which the caller counts the credit; see stream_retrieve.

        Raises:
            NotConnected: there is no connection.
        """
        try:
            await self._connected(self._timeout_s)
        except AttemptFailedError as attempt:
            raise attempt.failure.error from None
        # The stubs ask for an iterator of requests, in place of which write() is used.
        begin = cast("Callable[..., Any]", self._queue.StreamRetrieve)
        return RpcStreamCall(begin(metadata=self._metadata()))


class RpcStreamCall:
    """One StreamRetrieve over gRPC; see StreamCall."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def write(self, message: pb.StreamRetrieveRequest) -> None:
        """Sends a message."""
        try:
            await self._call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The call has ended; read() says how.
            pass
        except asyncio.CancelledError:
            _pass_on_own_cancellation()

    async def read(self) -> pb.StreamRetrieveResponse | None:
        """The next reply; None at the end."""
        try:
            reply = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise failure_of_rpc_error(error).error from error
        except asyncio.CancelledError:
            _pass_on_own_cancellation()
            failure = transport_failure(grpc.StatusCode.CANCELLED, "the call was cancelled")
            raise failure.error from None
        return reply if isinstance(reply, pb.StreamRetrieveResponse) else None

    async def close_requests(self) -> None:
        """Ends the call in good order."""
        try:
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass
        except asyncio.CancelledError:
            _pass_on_own_cancellation()

    def cancel(self) -> None:
        """Ends the call at once."""
        self._call.cancel()


def _pass_on_own_cancellation() -> None:
    """A call that is cancelled looks the same as the cancellation of the task that awaits it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _nothing() -> None:
    pass
