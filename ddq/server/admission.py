"""Which calls a server begins with: it refuses instead of growing.

A call is judged when gRPC hands it over, before its request is read, so that a refusal costs a
fraction of a call. What ends or prolongs attempts has half as much room again as new work: an
``Ack`` that is refused costs a second delivery, an ``Enqueue`` that is refused costs nothing.

A call whose request does not arrive in time is ended, and a connection that does not take a reply
in time is closed: a client that neither sends nor reads would otherwise keep its place and its
memory for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from grpc_status import rpc_status

from ddq.config import MS_PER_SECOND, Settings
from ddq.errors import Overloaded
from ddq.metrics import Metrics
from ddq.server.status import to_status
from ddq.server.throttled_log import ThrottledLog
from ddq.server.waiting_calls import Channelz, WaitingCalls

if TYPE_CHECKING:
    # It has no parameters at run time.
    _GenericHandler = grpc.GenericRpcHandler[Any, Any]
else:
    _GenericHandler = grpc.GenericRpcHandler

log = logging.getLogger(__name__)

FINISHING = frozenset(
    f"{form}{name}"
    for form in ("", "Batch")
    for name in ("Ack", "Nack", "Extend", "Release", "Snooze", "Cancel", "RunAgain")
)
"""RPCs that end or prolong what has been accepted."""
ALWAYS = frozenset({"Check"})
"""RPCs that are never refused: an overloaded server is not one that is down."""
FINISHING_FACTOR = 1.5
"""The room of FINISHING, as a multiple of that of the others."""
RELIEF_SHARE = 0.5
"""Once calls are refused since too many wait, they are until so much of the bound is left."""
HARD_LIMIT_FACTOR = 2
"""gRPC itself ends calls with CANCELLED while so many times the bound wait."""
STALL_CHECK_S = 1.0


class Admission:
    """Counts the calls of one server, and refuses those that are beyond its bounds.

    Args:
        waiting: the calls that gRPC has not handed over; None: they are not known.
        close_connection: of a client by its end, such as ``ipv4:127.0.0.1:40000``.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        waiting: WaitingCalls | None,
        close_connection: Callable[[str], None],
    ) -> None:
        self._waiting = waiting
        self._metrics = metrics
        self._log = ThrottledLog(log)
        self._waiting_max_count = settings.calls_waiting_max_count
        self._waiting_max_s = settings.calls_waiting_max_ms / MS_PER_SECOND
        self._running_max_count = settings.calls_running_max_count
        self._running_max_bytes = settings.calls_running_max_bytes
        self._connection_max_count = settings.connection_calls_max_count
        self._close_connection = close_connection
        self._transfer_s = settings.transfer_timeout_ms / MS_PER_SECOND
        self._running_count = 0
        self._running_bytes = 0
        self._too_many_wait = False
        # In the order of the times at which the transfers began.
        self._transfers: dict[asyncio.Task[Any], _Transfer] = {}
        self._stalled: set[asyncio.Task[Any]] = set()
        self._connection_counts: dict[str, int] = {}
        self._loop = asyncio.get_running_loop()

    # When a call is handed over --------------------------------------------------------------

    def refusal(self, name: str) -> Overloaded | None:
        """Takes in a call of the current task; an error if it is not to be begun with.

        Args:
            name: of the RPC.
        """
        task = _this_task()
        self._running_count += 1
        self._transfers[task] = _Transfer(self._loop.time())
        task.add_done_callback(self._ended)
        if self._waiting is not None:
            self._waiting.hand_over()
        if name in ALWAYS:
            return None
        factor = FINISHING_FACTOR if name in FINISHING else 1.0
        if self._running_count > self._running_max_count * factor:
            return self._refused(
                name, "running", f"{self._running_count - 1} calls are under way already"
            )
        if self._waiting is not None and (why := self._waits_too_long(self._waiting, factor)):
            return self._refused(name, "waiting", why)
        return None

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running_count -= 1
        self._stalled.discard(task)
        transfer = self._transfers.pop(task, None)
        if transfer is not None:
            self._running_bytes -= transfer.size_bytes

    def _waits_too_long(self, waiting: WaitingCalls, factor: float) -> str | None:
        """Why calls of this factor are refused, if they are."""
        if not self._too_many_wait:
            if not self._exceeds(waiting, 1.0):
                return None
            # It costs more than the count, which may be too high.
            waiting.recount(self._running_count)
            self._too_many_wait = self._exceeds(waiting, 1.0)
        elif not self._exceeds(waiting, RELIEF_SHARE):
            self._too_many_wait = False
        else:
            waiting.recount(self._running_count)
        if not self._too_many_wait or (factor > 1.0 and not self._exceeds(waiting, factor)):
            return None
        return f"{waiting.count} calls wait already, the first for {waiting.age_s:.1f} s"

    def _exceeds(self, waiting: WaitingCalls, factor: float) -> bool:
        return (
            waiting.count > self._waiting_max_count * factor
            or waiting.age_s > self._waiting_max_s * factor
        )

    def _refused(self, name: str, bound: str, why: str) -> Overloaded:
        error = Overloaded(f"the server is overloaded: {why}")
        self._metrics.calls_refused.labels(bound).inc()
        self._metrics.rpcs.labels(name, error.code.name, error.reason).inc()
        self._log.warning(bound, "calls are refused: %(reason)s", {"reason": why})
        return error

    # While it runs ----------------------------------------------------------------------------

    def hold(self, name: str, peer: str, size_bytes: int) -> Overloaded | None:
        """Takes in a request, until ``let_go``; an error if it is not to run.

        Args:
            name: of the RPC.
            peer: the client's end of its connection.
            size_bytes: of the request. One that is alone is accepted whatever its size.
        """
        factor = FINISHING_FACTOR if name in FINISHING else 1.0
        held = self._running_bytes
        if held and held + size_bytes > self._running_max_bytes * factor:
            return self._refused(name, "bytes", f"requests of {held} bytes are under way already")
        count = self._connection_counts.get(peer, 0)
        if count >= self._connection_max_count * factor:
            return self._refused(
                name, "connection", f"{count} calls of this connection are under way already"
            )
        self._connection_counts[peer] = count + 1
        self._running_bytes += size_bytes
        return None

    def let_go(self, peer: str, size_bytes: int) -> None:
        """The request has been handled."""
        self._running_bytes -= size_bytes
        self._connection_counts[peer] -= 1
        if not self._connection_counts[peer]:
            del self._connection_counts[peer]

    # Transfers that make no progress ----------------------------------------------------------

    def received(self) -> None:
        """The request of the current task's call has arrived."""
        self._transfers.pop(_this_task(), None)

    def sending(self, peer: str) -> None:
        """The current task's call begins to send its reply, or a part of it, to a client."""
        self._transfers[_this_task()] = _Transfer(self._loop.time(), peer)

    def sends(self, size_bytes: int) -> None:
        """The reply has so many bytes, which are kept until it was sent."""
        transfer = self._transfers.get(_this_task())
        if transfer is not None:
            transfer.size_bytes = size_bytes
            self._running_bytes += size_bytes

    def sent(self) -> None:
        """The connection has taken what was sent."""
        self._running_bytes -= self._transfers.pop(_this_task()).size_bytes

    def is_stalled(self) -> bool:
        """Whether the current task was cancelled because its request has not arrived."""
        task = _this_task()
        if task not in self._stalled:
            return False
        self._stalled.remove(task)
        task.uncancel()
        return True

    async def end_stalled(self) -> None:
        """Ends calls whose request or reply takes too long, until it is cancelled."""
        while True:
            await asyncio.sleep(min(STALL_CHECK_S, self._transfer_s / 2))
            latest_s = self._loop.time() - self._transfer_s
            for task, transfer in [*self._transfers.items()]:
                if transfer.since_s > latest_s:
                    break
                if transfer.ended:
                    continue
                transfer.ended = True
                self._metrics.calls_stalled.inc()
                self._log.warning(
                    "stalled",
                    "a call is ended: its client has not sent its request, or not taken the reply, "
                    "for %(timeout_s)g s",
                    {"timeout_s": self._transfer_s},
                )
                if transfer.peer is None:
                    self._stalled.add(task)
                    task.cancel()
                else:
                    self._close_connection(transfer.peer)


@dataclass(eq=False, slots=True)
class _Transfer:
    """A request or a reply on its way.

    Attributes:
        since_s: when it began, in the event loop's time.
        peer: who is to take a reply; None for a request.
        size_bytes: of a reply.
        ended: whether it was ended, and its call does not know that yet.
    """

    since_s: float
    peer: str | None = None
    size_bytes: int = 0
    ended: bool = False


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


class RefusingHandler(_GenericHandler):
    """The methods of one service, behind an Admission.

    Args:
        handlers: by the method's path, such as ``/ddq.v1.DelayQueueService/Enqueue``.
    """

    def __init__(
        self, handlers: dict[str, grpc.RpcMethodHandler[Any, Any]], admission: Admission
    ) -> None:
        self._handlers = handlers
        self._admission = admission

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a call, or one that refuses it without reading its request."""
        path: Any = handler_call_details.method
        handler = self._handlers.get(path)
        if handler is None:
            return None
        error = self._admission.refusal(path.rpartition("/")[2])
        return handler if error is None else refusing(error)


def refusing(error: Overloaded) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler that answers any call with the error, whatever its request is.

    It has the form of a stream, since gRPC reads the request of every other form first.
    """
    status = rpc_status.to_status(to_status(error))

    async def refuse(_: Any, context: Any) -> None:
        context.set_trailing_metadata(status.trailing_metadata)
        context.set_code(status.code)
        context.set_details(status.details)

    make: Callable[..., grpc.RpcMethodHandler[Any, Any]] = grpc.stream_stream_rpc_method_handler
    return make(refuse)


def known_waiting_calls() -> WaitingCalls | None:
    """The waiting calls of the server that was made last; None if gRPC does not count them."""
    try:
        return WaitingCalls(Channelz())
    except (AttributeError, KeyError, TypeError, ValueError):
        log.warning(
            "this version of grpcio does not say how many calls wait: calls_waiting_max_ms has no "
            "effect, and gRPC ends calls beyond calls_waiting_max_count with CANCELLED"
        )
        return None
