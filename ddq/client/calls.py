"""The connection, deadlines, and one way to make a call that the groups of methods share."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self, TypeAlias, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ddq import tracing
from ddq.client import convert
from ddq.client.access import Access, Metadata
from ddq.client.batch import B, DatedExchange, I, Item, V, run_batch, split
from ddq.client.coalesce import Coalescer, Form
from ddq.client.items import ItemRpc
from ddq.client.process import check_process, claim_process
from ddq.client.proxy import is_loopback
from ddq.client.repeat import Backoff, Repeater, SystemTiming, Timing
from ddq.client.rpcs import Rpc
from ddq.client.status import (
    AttemptFailedError,
    Failure,
    failure_of_rpc_error,
    not_connected,
    transport_failure,
)
from ddq.client.storetime import StoreTime, store_time_ms
from ddq.client.values import ItemResult
from ddq.config import LIMITS, MIB
from ddq.entropy import Entropy, SystemEntropy, uuid7
from ddq.errors import PayloadTooLarge
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1.delay_queue_admin_service_pb2_grpc import DelayQueueAdminServiceStub
from ddq.v1.delay_queue_service_pb2_grpc import DelayQueueServiceStub

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

DEFAULT_TIMEOUT_S = 15.0

REASON_TIMEOUT_S = 0.25
"""How long gRPC may take to say why there is no connection."""

_CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    # A reply may hold 3 MiB of payloads, and a page of tasks with theirs more than that.
    ("grpc.max_receive_message_length", 64 * MIB),
    # Above what a server takes, so that its limit is the one that answers.
    ("grpc.max_send_message_length", 64 * MIB),
    # A host that vanished without closing its connections is noticed within 30 s, where a long
    # poll would wait for its deadline. More often than this, servers with default settings
    # take pings for abuse.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A server that restarts is found again within a second; the default backs off to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # gRPC's own transparent retries know nothing about what is safe to repeat.
    ("grpc.enable_retries", 0),
    # Clients in one process would otherwise share a connection, and its failures.
    ("grpc.use_local_subchannel_pool", 1),
)


Method: TypeAlias = grpc.aio.UnaryUnaryMultiCallable[Q, A]


@dataclass(frozen=True, slots=True)
class Deadline:
    """The end of a request.

    Attributes:
        at_s: in monotonic time, for this process.
    """

    at_s: float


class Caller:
    """Holds the channel and makes calls; the groups of methods inherit from it.

    Args:
        address: ``host:port`` of a ddq server, or any target that gRPC understands.
        timeout_s: how long a request may take with all its repeats, unless a call says otherwise.
        access: TLS, the client's certificate and its token; None: plain text, and no token.
        credentials: for TLS, in place of what ``access`` says about it.
        timing, entropy, backoff: for tests.

    Raises:
        AccessError: ``access`` cannot be used.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        access: Access | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        timing: Timing | None = None,
        entropy: Entropy | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._process = claim_process()
        self._address = address
        self._timeout_s = timeout_s
        self._access = access or Access()
        self._credentials = credentials or self._access.credentials()
        encrypted = self._credentials is not None
        self._metadata: Callable[[], Metadata | None] = self._access.metadata(
            address, encrypted=encrypted
        )
        self._backoff = backoff
        self._timing = timing or SystemTiming()
        self._entropy = entropy or SystemEntropy()
        self._store_time = StoreTime(self._timing)
        self._repeater = Repeater(self._timing, self._entropy, backoff or Backoff())
        options = _CHANNEL_OPTIONS
        if is_loopback(address):
            # A proxy is another machine, to which this address means itself.
            options += (("grpc.enable_http_proxy", 0),)
        self._channel = (
            grpc.aio.insecure_channel(address, options=options)
            if self._credentials is None
            else grpc.aio.secure_channel(address, self._credentials, options=options)
        )
        self._queue = DelayQueueServiceStub(self._channel)
        self._admin = DelayQueueAdminServiceStub(self._channel)
        self._closed = False
        self._coalescers: dict[tuple[str, str], Coalescer[Any, Any]] = {}

    def duplicate(self) -> Self:
        """Another client of the same server, with a connection of its own.

        Call it in the event loop that is to use the new client; a client belongs to one loop.

        Raises:
            WrongProcessError: this client was made in another process.
        """
        check_process(self._process)
        return type(self)(
            self._address,
            timeout_s=self._timeout_s,
            access=self._access,
            credentials=self._credentials,
            timing=self._timing,
            entropy=self._entropy,
            backoff=self._backoff,
        )

    @property
    def address(self) -> str:
        """What the client was given."""
        return self._address

    async def close(self) -> None:
        """Closes the connection; calls under way end with TransportError."""
        self._closed = True
        if self._process != os.getpid():
            # The connection is the other process's; touching it here could hang or crash.
            return
        await self._channel.close(grace=None)

    async def connect(self, *, timeout_s: float | None = None) -> None:
        """Waits for the connection, and raises at the first refusal.

        Not needed before other methods: they connect by themselves, and keep trying until their
        deadline.

        Raises:
            TransportError: no server answers there.
        """
        try:
            async with asyncio.timeout(self._timeout_s if timeout_s is None else timeout_s):
                while (state := self._state()) is not grpc.ChannelConnectivity.READY:
                    if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                        raise (await self._not_connected()).error
                    await self._channel.wait_for_state_change(state)
        except TimeoutError:
            raise not_connected(self._address).error from None

    async def _not_connected(self) -> Failure:
        """The failure, with the reason that gRPC gives to a call in this state; it is not sent."""
        said = ""
        if self._channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            # Should the connection stand by now, it only asks for the health.
            ask: Any = self._channel.unary_unary(  # type: ignore[call-arg]
                "/grpc.health.v1.Health/Check"
            )
            try:
                await ask(b"", timeout=REASON_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                said = error.details() or ""
        return not_connected(self._address, said, encrypted=self._credentials is not None)

    def _state(self) -> grpc.ChannelConnectivity:
        check_process(self._process)
        if self._closed:
            raise RuntimeError("the client is closed")
        return self._channel.get_state(try_to_connect=True)

    def _deadline(self, timeout_s: float | None, extra: timedelta | None = None) -> Deadline:
        span_s = self._timeout_s if timeout_s is None else timeout_s
        if extra is not None:
            span_s += extra.total_seconds()
        return Deadline(self._timing.monotonic_s() + span_s)

    def _not_after_ms(self, deadline: Deadline) -> int:
        """The deadline for the store, in ms since 1970: the request has no effect afterwards."""
        left_ms = round((deadline.at_s - self._timing.monotonic_s()) * 1_000)
        return self._store_time.now_ms() + left_ms

    def _new_id(self) -> str:
        return uuid7(self._timing.wall_ms(), self._entropy)

    async def _call(
        self,
        rpc: Rpc,
        what: str,
        method: Method[Q, A],
        request: Q,
        deadline: Deadline,
    ) -> A:
        """Makes one request, repeated as need be. ``what`` names its subject in messages.

        A request that can say so has no effect after its deadline.
        """
        dated = "not_after" in request.DESCRIPTOR.fields_by_name

        async def send(not_after_ms: int, remaining_s: float) -> A:
            if dated:
                request.not_after.CopyFrom(convert.timestamp(not_after_ms))  # type: ignore[attr-defined]
            _check_size(request)
            return await self._attempt(method, request, remaining_s)

        return await self._repeat(rpc, what, send, deadline, dated=dated)

    async def _call_item(self, kind: ItemRpc[I, V], item: Item[I], deadline: Deadline) -> V:
        """Makes one request, repeated as need be; the attempts of concurrent calls share one."""

        def send(not_after_ms: int, remaining_s: float) -> Awaitable[Any]:
            # Looked up for each attempt: it is forgotten while nothing is under way.
            return self._coalescer(kind, item.topic).attempt(item, not_after_ms, remaining_s)

        waiting = self._coalescers.get((kind.rpc.name, item.topic))
        if waiting is not None:
            waiting.check_room()
        what = f"{item.topic}/{item.id}"
        return kind.value(await self._repeat(kind.rpc, what, send, deadline, dated=True))

    async def _repeat(
        self,
        rpc: Rpc,
        what: str,
        send: Callable[[int, float], Awaitable[A]],
        deadline: Deadline,
        *,
        dated: bool,
    ) -> A:
        """Sends until there is an answer, or no time is left.

        Args:
            send: one attempt, with the ``not_after`` in ms since 1970 and the seconds that are
                left.
            dated: whether the request says ``not_after``.
        """
        not_after_ms = self._not_after_ms(deadline)
        may_have_acted = False

        async def attempt(remaining_s: float) -> A:
            nonlocal may_have_acted, not_after_ms
            asked = self._store_time.asked()
            try:
                return await send(not_after_ms, remaining_s)
            except AttemptFailedError as failed:
                may_have_acted = may_have_acted or not failed.failure.definite
                learned = self._store_time.learn_from(failed.failure.error, asked)
                # Another date makes another request of it, which is safe as long as no attempt of
                # the first can have had an effect.
                if not learned or not dated or may_have_acted:
                    raise
            not_after_ms = self._not_after_ms(deadline)
            return await send(not_after_ms, self._repeater.remaining_s(deadline.at_s))

        return await self._repeater.run(rpc, f"{rpc.name} {what}", attempt, deadline.at_s)

    async def _attempt(self, method: Method[Q, A], request: Q, remaining_s: float) -> A:
        if tracing.current is None:
            return await self._send(method, request, remaining_s, self._metadata())
        with tracing.current.call(request, self._address, self._metadata()) as (span, metadata):
            answer = await self._send(method, request, remaining_s, metadata)
            if isinstance(answer, pb.RetrieveResponse) and tracing.current is not None:
                tracing.current.received(span, answer.tasks)
            return answer

    async def _send(
        self, method: Method[Q, A], request: Q, remaining_s: float, metadata: Metadata | None
    ) -> A:
        remaining_s -= await self._connected(remaining_s)
        asked = self._store_time.asked()
        try:
            answer: A = await method(request, timeout=max(0.001, remaining_s), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise AttemptFailedError(failure_of_rpc_error(error)) from error
        except asyncio.CancelledError:
            # A channel that is closed cancels its calls, which looks the same as the caller's own
            # cancellation; that one must pass through.
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            failure = transport_failure(grpc.StatusCode.CANCELLED, "the client was closed")
            raise AttemptFailedError(
                Failure(failure.error, definite=False, repeatable=False)
            ) from None
        if (store_ms := store_time_ms(answer)) is not None:
            self._store_time.observe(store_ms, asked)
        return answer

    async def _connected(self, remaining_s: float) -> float:
        """Waits for the connection; returns for how long, in seconds.

        A request is not sent before the connection stands: a server that is not there is then a
        definite failure, where gRPC's UNAVAILABLE cannot tell.

        Raises:
            AttemptFailedError: there is none.
        """
        if self._state() is grpc.ChannelConnectivity.READY:
            return 0.0
        started_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(remaining_s):
                await self._channel.channel_ready()
        except TimeoutError:
            raise AttemptFailedError(await self._not_connected()) from None
        return asyncio.get_running_loop().time() - started_s

    def _coalescer(self, kind: ItemRpc[I, V], topic: str) -> Coalescer[I, Any]:
        """What shares the requests of one RPC on one topic; kept while any of them is under way."""
        key = (kind.rpc.name, topic)
        if key not in self._coalescers:

            async def alone(item: Item[I], not_after_ms: int, remaining_s: float) -> Any:
                request = kind.request(item, convert.timestamp(not_after_ms))
                _check_size(request)
                return await self._attempt(kind.method, request, remaining_s)

            async def together(
                items: Sequence[I], not_after_ms: int, remaining_s: float, request_id: str | None
            ) -> Any:
                request = functools.partial(kind.batch_request, request_id=request_id)
                return await self._exchange(
                    request, kind.batch_method, topic, items, not_after_ms, remaining_s
                )

            self._coalescers[key] = Coalescer(
                Form(alone, together, self._new_id), lambda: self._forget_coalescer(key)
            )
        return self._coalescers[key]

    def _forget_coalescer(self, key: tuple[str, str]) -> None:
        """Nothing of this RPC and topic is under way: a client may see any number of topics."""
        self._coalescers.pop(key, None)

    async def _call_batches(
        self,
        rpc: Rpc,
        items: Sequence[Item[I]],
        *,
        request: Callable[[str, Sequence[I], Timestamp], Q],
        method: Method[Q, Any],
        read: Callable[[B], V],
        deadline: Deadline,
        on_result: Callable[[int, ItemResult[V]], None] | None = None,
    ) -> list[ItemResult[V]]:
        """Makes as many batches as the items need, one after the other, results in their order.

        Args:
            request: makes the message for some items of one topic.
            read: the value of an item that is OK.
            on_result: called with the position of an item and its result as soon as that is known.

        Raises:
            DdqError: no batch was answered item by item; the first error there was.
        """
        results: dict[int, ItemResult[V]] = {}
        answered = False
        for batch in split(items):

            def in_batch(
                index: int,
                result: ItemResult[V],
                batch: Sequence[tuple[int, Item[I]]] = batch,
            ) -> None:
                if on_result is not None:
                    on_result(batch[index][0], result)

            exchange = DatedExchange(
                self._store_time,
                # Bound now: the loop goes on to another topic.
                functools.partial(self._exchange, request, method, batch[0][1].topic),
                functools.partial(self._not_after_ms, deadline),
            )
            outcome = await run_batch(
                self._repeater,
                rpc,
                [item for _, item in batch],
                exchange=exchange,
                read=read,
                deadline_s=deadline.at_s,
                on_result=in_batch if on_result is not None else None,
            )
            answered = answered or outcome.answered
            results |= {
                index: result for (index, _), result in zip(batch, outcome.results, strict=True)
            }
        ordered = [results[index] for index in range(len(items))]
        if ordered and not answered and (error := ordered[0].error) is not None:
            raise error from error.__cause__
        return ordered

    async def _exchange(
        self,
        request: Callable[[str, Sequence[I], Timestamp], Q],
        method: Method[Q, Any],
        topic: str,
        items: Sequence[I],
        not_after_ms: int,
        remaining_s: float,
    ) -> Sequence[B]:
        not_after = convert.timestamp(not_after_ms)
        reply = await self._attempt(method, request(topic, items, not_after), remaining_s)
        return cast("Sequence[B]", reply.results)


def _check_size(request: Message) -> None:
    """Refuses here what no server takes: its transport would answer without naming the limit."""
    size_bytes = request.ByteSize()
    if size_bytes > LIMITS.request_max_bytes:
        raise PayloadTooLarge(
            f"the request is {size_bytes} bytes; one may have {LIMITS.request_max_bytes}, and a "
            f"payload {LIMITS.payload_max_bytes}"
        )


def check_topics(topics: str | Sequence[str]) -> list[str]:
    """One topic or several, as a list."""
    names = [topics] if isinstance(topics, str) else list(topics)
    return [convert.text("topics", name) for name in names]
