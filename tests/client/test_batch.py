"""Batches: each item has its own fate, and only open ones are sent again."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from ddq import errors
from ddq.client import Client, LeaseRef, NewTask
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2
from tests.client.fake import FakeServer, FakeTiming, refusal


def acks(*statuses: status_pb2.Status) -> pb.BatchAckResponse:
    return pb.BatchAckResponse(
        results=[
            pb.BatchAckResult(status=status, result=pb.AckResult(revision=index))
            for index, status in enumerate(statuses)
        ]
    )


OK = status_pb2.Status()


def leases(*names: str) -> list[LeaseRef]:
    pairs = (name.split("/") for name in names)
    return [LeaseRef(topic, task_id, b"token") for topic, task_id in pairs]


async def accept(request: Any) -> pb.BatchEnqueueResponse:
    return pb.BatchEnqueueResponse(
        results=[
            pb.BatchEnqueueResult(
                status=OK,
                result=pb.EnqueueResult(id=item.task.id, state=task_pb2.TASK_STATE_SCHEDULED),
            )
            for item in request.items
        ]
    )


async def test_only_open_items_are_sent_again(client: Client, server: FakeServer) -> None:
    server.script["BatchAck"] = [
        acks(OK, refusal(errors.LeaseLost), refusal(errors.WriteOutcomeUnknown)),
        acks(refusal(errors.LeaseLost)),
    ]
    good, lost, unknown = await client.ack_batch(leases("mail/a", "mail/b", "mail/c"))
    assert good.unwrap().revision == 0
    assert isinstance(lost.error, errors.LeaseLost)
    assert isinstance(unknown.error, errors.OutcomeUnknown)
    assert isinstance(unknown.error.__cause__, errors.LeaseLost)
    assert [result.id for result in (good, lost, unknown)] == ["a", "b", "c"]
    first, second = server.requests["BatchAck"]
    assert [item.id for item in first.items] == ["a", "b", "c"]
    assert [item.id for item in second.items] == ["c"]
    assert first.not_after == second.not_after
    with pytest.raises(errors.LeaseLost):
        lost.unwrap()


async def test_a_lost_reply_leaves_every_item_open(client: Client, server: FakeServer) -> None:
    server.script["BatchAck"] = [grpc.StatusCode.UNAVAILABLE, acks(OK, refusal(errors.LeaseLost))]
    good, lost = await client.ack_batch(leases("mail/a", "mail/b"))
    assert good.error is None
    assert isinstance(lost.error, errors.OutcomeUnknown)


async def test_open_items_at_the_deadline(client: Client, server: FakeServer) -> None:
    server.script["BatchAck"] = [
        acks(refusal(errors.WriteOutcomeUnknown), refusal(errors.StoreUnreachable)),
    ]
    unknown, unreachable = await client.ack_batch(leases("mail/a", "mail/b"))
    assert isinstance(unknown.error, errors.OutcomeUnknown)
    assert isinstance(unreachable.error, errors.StoreUnreachable)


async def test_the_longest_wait_that_an_item_asks_for(
    client: Client, server: FakeServer, timing: FakeTiming
) -> None:
    server.script["BatchAck"] = [
        acks(refusal(errors.Overloaded, retry_delay_s=4.0), refusal(errors.StoreUnreachable)),
        acks(OK, OK),
    ]
    results = await client.ack_batch(leases("mail/a", "mail/b"))
    assert [result.error for result in results] == [None, None]
    assert timing.sleeps_s[0] >= 4.0


async def test_a_refused_envelope_is_raised(client: Client, server: FakeServer) -> None:
    server.script["BatchAck"] = [refusal(errors.InvalidArgument)]
    with pytest.raises(errors.InvalidArgument):
        await client.ack_batch(leases("mail/a", "mail/a"))
    assert len(server.requests["BatchAck"]) == 1


async def test_a_refused_part_is_in_the_results(client: Client, server: FakeServer) -> None:
    server.script["BatchAck"] = [acks(OK), refusal(errors.TopicNotFound)]
    good, bad = await client.ack_batch(leases("mail/a", "gone/b"))
    assert good.error is None
    assert isinstance(bad.error, errors.TopicNotFound)
    server.script["BatchAck"] = [acks(refusal(errors.LeaseLost)), refusal(errors.TopicNotFound)]
    lost, bad = await client.ack_batch(leases("mail/a", "gone/b"))
    assert isinstance(lost.error, errors.LeaseLost)
    assert isinstance(bad.error, errors.TopicNotFound)


async def test_topics_are_asked_one_by_one_and_results_keep_their_order(
    client: Client, server: FakeServer
) -> None:
    server.script["BatchAck"] = [acks(OK, OK), acks(refusal(errors.LeaseLost))]
    first, second, third = await client.ack_batch(leases("a/1", "b/2", "a/3"))
    assert [request.topic for request in server.requests["BatchAck"]] == ["a", "b"]
    assert (first.error, third.error) == (None, None)
    assert isinstance(second.error, errors.LeaseLost)


async def test_any_number_of_tasks_goes_out_in_batches(client: Client, server: FakeServer) -> None:
    server.script["BatchEnqueue"] = [accept]
    results = await client.enqueue_batch("mail", [NewTask(b"%d" % index) for index in range(2_500)])
    requests = server.requests["BatchEnqueue"]
    assert [len(request.items) for request in requests] == [1_000, 1_000, 500]
    sent = [item.task.id for request in requests for item in request.items]
    assert [result.id for result in results] == sent
    assert len(set(sent)) == 2_500
    assert len({request.request_id for request in requests}) == 1


async def test_batches_stay_within_their_bytes(client: Client, server: FakeServer) -> None:
    server.script["BatchEnqueue"] = [accept]
    await client.enqueue_batch("mail", [NewTask(b"x" * 1_000_000)] * 7)
    sizes = [len(request.items) for request in server.requests["BatchEnqueue"]]
    assert sizes == [3, 3, 1]


async def test_an_empty_batch_sends_no_request(client: Client, server: FakeServer) -> None:
    assert await client.ack_batch([]) == []
    assert not server.requests["BatchAck"]
