"""The methods that workers call for a task they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from google.protobuf.message import Message

from ddq.client import convert, rpcs
from ddq.client.batch import Item
from ddq.client.calls import Caller, Coalesced
from ddq.client.rpcs import Rpc
from ddq.client.values import (
    Acked,
    Extended,
    ItemResult,
    LeaseRef,
    Nacked,
    RanAgain,
    Released,
    Snoozed,
)
from ddq.v1 import delay_queue_service_pb2 as pb

M = TypeVar("M", bound=Message)
V = TypeVar("V")


class LeaseCalls(Caller):
    """Leases: ack, run again, nack, extend, release, snooze."""

    async def ack(self, lease: LeaseRef, *, timeout_s: float | None = None) -> Acked:
        """Finishes a leased task.

        Raises:
            LeaseLost: the token no longer holds.
            TaskNotFound, OutcomeUnknown
        """
        request = pb.AckRequest(topic=lease.topic, id=lease.id, lease_token=lease.token)
        return await self._settle(
            rpcs.ACK,
            lease,
            request,
            self._queue.Ack,
            convert.acked,
            timeout_s,
            item=pb.BatchAckItem(id=lease.id, lease_token=lease.token),
            batch=(pb.BatchAckRequest, self._queue.BatchAck),
        )

    async def ack_batch(
        self, leases: Sequence[LeaseRef], *, timeout_s: float | None = None
    ) -> list[ItemResult[Acked]]:
        """Finishes leased tasks of any topics; one result each, in order.

        Raises:
            DdqError: all of them failed in the same way.
        """
        return await self._settle_batch(
            rpcs.ACK,
            leases,
            lambda lease: pb.BatchAckItem(id=lease.id, lease_token=lease.token),
            pb.BatchAckRequest,
            self._queue.BatchAck,
            convert.acked,
            timeout_s,
        )

    async def run_again(
        self,
        lease: LeaseRef,
        *,
        delay: timedelta | None = None,
        due: datetime | None = None,
        payload: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> RanAgain:
        """Finishes a leased task and enqueues its next run under the same id: both or neither.

        Args:
            delay: until the next run is due, from the moment the store takes the request; neither
                ``delay`` nor ``due``: now.
            due: when the next run is due, with a time zone.
            payload: of the next run; None with ``headers`` None: both as in this run.
            headers: of the next run; None with a ``payload``: none.

        Raises:
            LeaseLost: the token no longer holds; nothing was enqueued.
            InvalidArgument, TaskNotFound, OutcomeUnknown
        """
        request = pb.RunAgainRequest(topic=lease.topic, id=lease.id, lease_token=lease.token)
        convert.put_schedule(request.next, delay, due)
        if payload is not None or headers is not None:
            request.next.content.CopyFrom(convert.content(payload or b"", headers or {}))
        return await self._settle(
            rpcs.RUN_AGAIN, lease, request, self._queue.RunAgain, convert.ran_again, timeout_s
        )

    async def nack(
        self,
        lease: LeaseRef,
        *,
        error: str = "",
        delay: timedelta | None = None,
        dead_letter: bool = False,
        timeout_s: float | None = None,
    ) -> Nacked:
        """Ends an attempt without success: the task is retried, or is dead.

        Args:
            error: kept as the task's last_error, cut to 2,048 bytes.
            delay: until the next attempt; None: the retry policy's backoff.
            dead_letter: dead now, whatever attempts are left.

        Raises:
            LeaseLost, TaskNotFound, OutcomeUnknown
        """
        request = pb.NackRequest(
            topic=lease.topic,
            id=lease.id,
            lease_token=lease.token,
            verdict=convert.verdict(error, delay, dead_letter=dead_letter),
        )
        return await self._settle(
            rpcs.NACK,
            lease,
            request,
            self._queue.Nack,
            convert.nacked,
            timeout_s,
            item=pb.BatchNackItem(id=lease.id, lease_token=lease.token, verdict=request.verdict),
            batch=(pb.BatchNackRequest, self._queue.BatchNack),
        )

    async def nack_batch(
        self,
        leases: Sequence[LeaseRef],
        *,
        error: str = "",
        delay: timedelta | None = None,
        dead_letter: bool = False,
        timeout_s: float | None = None,
    ) -> list[ItemResult[Nacked]]:
        """Like nack, for leases of any topics; one result each, in order.

        Raises:
            DdqError: all of them failed in the same way.
        """
        verdict = convert.verdict(error, delay, dead_letter=dead_letter)
        return await self._settle_batch(
            rpcs.NACK,
            leases,
            lambda lease: pb.BatchNackItem(id=lease.id, lease_token=lease.token, verdict=verdict),
            pb.BatchNackRequest,
            self._queue.BatchNack,
            convert.nacked,
            timeout_s,
        )

    async def extend(
        self,
        lease: LeaseRef,
        duration: timedelta | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Extended:
        """Makes a lease run ``duration`` from now; never shortens it. None: the topic's default.

        Raises:
            LeaseLost, TaskNotFound: the lease is gone for good, whatever came before.
            OutcomeUnknown
        """
        request = pb.ExtendRequest(topic=lease.topic, id=lease.id, lease_token=lease.token)
        convert.put_duration(request.lease_duration, duration)
        return await self._settle(
            rpcs.EXTEND,
            lease,
            request,
            self._queue.Extend,
            convert.extended,
            timeout_s,
            item=pb.BatchExtendItem(
                id=lease.id, lease_token=lease.token, lease_duration=request.lease_duration
            )
            if duration is not None
            else pb.BatchExtendItem(id=lease.id, lease_token=lease.token),
            batch=(pb.BatchExtendRequest, self._queue.BatchExtend),
        )

    async def extend_batch(
        self,
        leases: Sequence[LeaseRef],
        duration: timedelta | None = None,
        *,
        timeout_s: float | None = None,
    ) -> list[ItemResult[Extended]]:
        """Like extend, for leases of any topics; one result each, in order.

        Raises:
            DdqError: all of them failed in the same way.
        """

        def item(lease: LeaseRef) -> pb.BatchExtendItem:
            message = pb.BatchExtendItem(id=lease.id, lease_token=lease.token)
            convert.put_duration(message.lease_duration, duration)
            return message

        return await self._settle_batch(
            rpcs.EXTEND,
            leases,
            item,
            pb.BatchExtendRequest,
            self._queue.BatchExtend,
            convert.extended,
            timeout_s,
        )

    async def release(self, lease: LeaseRef, *, timeout_s: float | None = None) -> Released:
        """Hands a lease back: the task is ready again, the attempt does not count.

        Raises:
            LeaseLost, TaskNotFound, OutcomeUnknown
        """
        request = pb.ReleaseRequest(topic=lease.topic, id=lease.id, lease_token=lease.token)
        return await self._settle(
            rpcs.RELEASE,
            lease,
            request,
            self._queue.Release,
            convert.released,
            timeout_s,
            item=pb.BatchReleaseItem(id=lease.id, lease_token=lease.token),
            batch=(pb.BatchReleaseRequest, self._queue.BatchRelease),
        )

    async def release_batch(
        self, leases: Sequence[LeaseRef], *, timeout_s: float | None = None
    ) -> list[ItemResult[Released]]:
        """Like release, for leases of any topics; one result each, in order.

        Raises:
            DdqError: all of them failed in the same way.
        """
        return await self._settle_batch(
            rpcs.RELEASE,
            leases,
            lambda lease: pb.BatchReleaseItem(id=lease.id, lease_token=lease.token),
            pb.BatchReleaseRequest,
            self._queue.BatchRelease,
            convert.released,
            timeout_s,
        )

    async def snooze(
        self, lease: LeaseRef, delay: timedelta, *, timeout_s: float | None = None
    ) -> Snoozed:
        """Puts a leased task off: due again after ``delay``, and the attempt does not count.

        Args:
            delay: 1 ms to 10 years, from the moment the store takes the request.

        Raises:
            SnoozeLimit: the run was snoozed 10,000 times; the lease still holds.
            LeaseLost, TaskNotFound, OutcomeUnknown
        """
        request = pb.SnoozeRequest(topic=lease.topic, id=lease.id, lease_token=lease.token)
        convert.put_duration(request.delay, delay)
        return await self._settle(
            rpcs.SNOOZE,
            lease,
            request,
            self._queue.Snooze,
            convert.snoozed,
            timeout_s,
            item=pb.BatchSnoozeItem(id=lease.id, lease_token=lease.token, delay=request.delay),
            batch=(pb.BatchSnoozeRequest, self._queue.BatchSnooze),
        )

    async def snooze_batch(
        self, leases: Sequence[LeaseRef], delay: timedelta, *, timeout_s: float | None = None
    ) -> list[ItemResult[Snoozed]]:
        """Like snooze, for leases of any topics; one result each, in order.

        Raises:
            DdqError: all of them failed in the same way.
        """

        def item(lease: LeaseRef) -> pb.BatchSnoozeItem:
            message = pb.BatchSnoozeItem(id=lease.id, lease_token=lease.token)
            convert.put_duration(message.delay, delay)
            return message

        return await self._settle_batch(
            rpcs.SNOOZE,
            leases,
            item,
            pb.BatchSnoozeRequest,
            self._queue.BatchSnooze,
            convert.snoozed,
            timeout_s,
        )

    # What all of them share ----------------------------------------------------------------

    async def _settle(
        self,
        rpc: Rpc,
        lease: LeaseRef,
        request: M,
        method: Any,
        read: Callable[[Any, Any], V],
        timeout_s: float | None,
        *,
        item: Message | None = None,
        batch: tuple[Callable[..., Message], Any] | None = None,
    ) -> V:
        """One request for one lease; ``read`` makes its value of result and receipt.

        Args:
            item: the same request as an item of a batch; None: there is no batch of this kind.
            batch: makes the batch's message; its method.
        """
        name = f"{lease.topic}/{lease.id}"
        coalesced = None
        if item is not None and batch is not None:
            make, batch_method = batch
            coalesced = Coalesced(
                Item(lease.topic, lease.id, item),
                lambda topic, items, not_after: make(topic=topic, items=items, not_after=not_after),
                batch_method,
            )
        reply = await self._call(
            rpc, name, method, request, self._deadline(timeout_s), coalesced=coalesced
        )
        return read(reply.result, reply.receipt)

    async def _settle_batch(
        self,
        rpc: Rpc,
        leases: Sequence[LeaseRef],
        item: Callable[[LeaseRef], M],
        request: Callable[..., Message],
        method: Any,
        read: Callable[[Any, Any], V],
        timeout_s: float | None,
    ) -> list[ItemResult[V]]:
        """As many requests as the leases need, one after the other; results in their order."""

        def value(answer: Any) -> V:
            return read(answer.result, answer.receipt)

        return await self._call_batches(
            rpc,
            [Item(lease.topic, lease.id, item(lease)) for lease in leases],
            request=lambda topic, items, not_after: request(
                topic=topic, items=items, not_after=not_after
            ),
            method=method,
            read=value,
            deadline=self._deadline(timeout_s),
        )
