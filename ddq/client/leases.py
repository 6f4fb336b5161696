"""The methods that workers call for a task they hold."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ddq.client import convert, rpcs
from ddq.client.batch import I, Item
from ddq.client.calls import Caller
from ddq.client.items import ItemRpc, V
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


class LeaseCalls(Caller):
    """Leases: ack, run again, nack, extend, release, snooze."""

    async def ack(self, lease: LeaseRef, *, timeout_s: float | None = None) -> Acked:
        """Finishes a leased task.

        Raises:
            LeaseLost: the token no longer holds.
            TaskNotFound, OutcomeUnknown
        """
        return await self._settle(self._acks, lease, timeout_s)

    async def ack_batch(
        self,
        leases: Sequence[LeaseRef],
        *,
        timeout_s: float | None = None,
        on_result: Callable[[int, ItemResult[Acked]], None] | None = None,
    ) -> list[ItemResult[Acked]]:
        """Finishes leased tasks of any topics; one result each, in order.

        Args:
            on_result: called in the client's event loop with the position of a lease and its
                result, as soon as that is known; others may have to be repeated for some time.

        Raises:
            DdqError: all of them failed in the same way.
        """
        return await self._settle_batch(self._acks, leases, timeout_s, on_result)

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
        reply = await self._call(
            rpcs.RUN_AGAIN,
            f"{lease.topic}/{lease.id}",
            self._queue.RunAgain,
            request,
            self._deadline(timeout_s),
        )
        return convert.ran_again(reply.result, reply.receipt)

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
        verdict = convert.verdict(error, delay, dead_letter=dead_letter)
        return await self._settle(self._nacks, lease, timeout_s, verdict=verdict)

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
        return await self._settle_batch(self._nacks, leases, timeout_s, verdict=verdict)

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
        lasts = convert.duration(duration)
        return await self._settle(self._extends, lease, timeout_s, lease_duration=lasts)

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
        lasts = convert.duration(duration)
        return await self._settle_batch(self._extends, leases, timeout_s, lease_duration=lasts)

    async def release(self, lease: LeaseRef, *, timeout_s: float | None = None) -> Released:
        """Hands a lease back: the task is ready again, the attempt does not count.

        Raises:
            LeaseLost, TaskNotFound, OutcomeUnknown
        """
        return await self._settle(self._releases, lease, timeout_s)

    async def release_batch(
        self, leases: Sequence[LeaseRef], *, timeout_s: float | None = None
    ) -> list[ItemResult[Released]]:
        """Like release, for leases of any topics; one result each, in order.

        Raises:
            DdqError: all of them failed in the same way.
        """
        return await self._settle_batch(self._releases, leases, timeout_s)

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
        return await self._settle(self._snoozes, lease, timeout_s, delay=convert.duration(delay))

    async def snooze_batch(
        self, leases: Sequence[LeaseRef], delay: timedelta, *, timeout_s: float | None = None
    ) -> list[ItemResult[Snoozed]]:
        """Like snooze, for leases of any topics; one result each, in order.

        Raises:
            DdqError: all of them failed in the same way.
        """
        return await self._settle_batch(
            self._snoozes, leases, timeout_s, delay=convert.duration(delay)
        )

    # What all of them share ----------------------------------------------------------------

    async def _settle(
        self, kind: ItemRpc[I, V], lease: LeaseRef, timeout_s: float | None, **fields: Any
    ) -> V:
        """One request for one lease, with what is given beside its id and token."""
        return await self._call_item(kind, _item(kind, lease, fields), self._deadline(timeout_s))

    async def _settle_batch(
        self,
        kind: ItemRpc[I, V],
        leases: Sequence[LeaseRef],
        timeout_s: float | None,
        on_result: Callable[[int, ItemResult[V]], None] | None = None,
        **fields: Any,
    ) -> list[ItemResult[V]]:
        """As many requests as the leases need, one after the other; results in their order."""
        return await self._call_batches(
            kind.rpc,
            [_item(kind, lease, fields) for lease in leases],
            request=kind.batch_request,
            method=kind.batch_method,
            read=kind.value,
            deadline=self._deadline(timeout_s),
            on_result=on_result,
        )

    @functools.cached_property
    def _acks(self) -> ItemRpc[pb.BatchAckItem, Acked]:
        return ItemRpc(
            rpcs.ACK,
            pb.BatchAckItem,
            pb.AckRequest,
            self._queue.Ack,
            pb.BatchAckRequest,
            self._queue.BatchAck,
            convert.acked,
        )

    @functools.cached_property
    def _nacks(self) -> ItemRpc[pb.BatchNackItem, Nacked]:
        return ItemRpc(
            rpcs.NACK,
            pb.BatchNackItem,
            pb.NackRequest,
            self._queue.Nack,
            pb.BatchNackRequest,
            self._queue.BatchNack,
            convert.nacked,
        )

    @functools.cached_property
    def _extends(self) -> ItemRpc[pb.BatchExtendItem, Extended]:
        return ItemRpc(
            rpcs.EXTEND,
            pb.BatchExtendItem,
            pb.ExtendRequest,
            self._queue.Extend,
            pb.BatchExtendRequest,
            self._queue.BatchExtend,
            convert.extended,
        )

    @functools.cached_property
    def _releases(self) -> ItemRpc[pb.BatchReleaseItem, Released]:
        return ItemRpc(
            rpcs.RELEASE,
            pb.BatchReleaseItem,
            pb.ReleaseRequest,
            self._queue.Release,
            pb.BatchReleaseRequest,
            self._queue.BatchRelease,
            convert.released,
        )

    @functools.cached_property
    def _snoozes(self) -> ItemRpc[pb.BatchSnoozeItem, Snoozed]:
        return ItemRpc(
            rpcs.SNOOZE,
            pb.BatchSnoozeItem,
            pb.SnoozeRequest,
            self._queue.Snooze,
            pb.BatchSnoozeRequest,
            self._queue.BatchSnooze,
            convert.snoozed,
        )


def _item(kind: ItemRpc[I, V], lease: LeaseRef, fields: Mapping[str, Any]) -> Item[I]:
    message = kind.item(id=lease.id, lease_token=lease.token, **fields)
    return Item(lease.topic, lease.id, message)
