"""Repeats: the same request, until its deadline, and no error that says more than is known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import grpc
import pytest
from google.protobuf.message import Message

from ddq import errors
from ddq.client import Backoff, Client, LeaseRef, OnConflict, TopicSettings, rpcs
from ddq.client.repeat import History
from ddq.client.status import Failure
from ddq.errors import DdqError
from ddq.v1 import delay_queue_admin_service_pb2 as admin_pb
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2
from tests.client.fake import FakeServer, FakeTiming, refusal

LEASE = LeaseRef("mail", "a", b"0123456789abcdef")
OK = pb.EnqueueResponse(
    result=pb.EnqueueResult(id="a", created=True, state=task_pb2.TASK_STATE_SCHEDULED)
)

Call = Callable[[Client], Awaitable[object]]

MUTATIONS: dict[str, Call] = {
    "Enqueue": lambda client: client.enqueue("mail", b"x", task_id="a"),
    "Retrieve": lambda client: client.retrieve("mail"),
    "Ack": lambda client: client.ack(LEASE),
    "RunAgain": lambda client: client.run_again(LEASE),
    "Nack": lambda client: client.nack(LEASE),
    "Extend": lambda client: client.extend(LEASE),
    "Release": lambda client: client.release(LEASE),
    "Snooze": lambda client: client.snooze(LEASE, timedelta(seconds=1)),
    "Cancel": lambda client: client.cancel("mail", "a"),
    "Reschedule": lambda client: client.reschedule("mail", "a"),
    "CreateTopic": lambda client: client.create_topic("mail"),
    "UpdateTopic": lambda client: client.update_topic("mail", TopicSettings(max_tasks=1)),
    "DeleteTopic": lambda client: client.delete_topic("mail"),  # reads its uid first
    "PauseTopic": lambda client: client.pause_topic("mail"),
    "ResumeTopic": lambda client: client.resume_topic("mail"),
    "PurgeTopic": lambda client: client.purge_topic("mail"),
    "RedriveDeadTasks": lambda client: client.redrive("mail"),
    "DeleteDeadTask": lambda client: client.delete_dead("mail", "a"),
}


async def test_a_repeat_is_the_same_request(
    client: Client, server: FakeServer, timing: FakeTiming
) -> None:
    server.script["Enqueue"] = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, OK]
    await client.enqueue("mail", b"x", on_conflict=OnConflict.REPLACE_IF_SCHEDULED)
    first, second, third = server.requests["Enqueue"]
    assert first == second == third
    assert len(first.task.id) == len(first.request_id) == 36
    assert first.task.id != first.request_id
    # 10 s from the start, whatever the attempts took.
    assert first.not_after.ToMilliseconds() == 1_700_000_000_000 + 1_010_000
    assert len(timing.sleeps_s) == 2


@pytest.mark.parametrize("name", MUTATIONS)
async def test_after_an_unknown_attempt_an_error_says_nothing(
    name: str, client: Client, server: FakeServer
) -> None:
    answer: type[DdqError] = errors.TaskNotFound
    if name in {"Ack", "RunAgain", "Nack", "Release", "Snooze"}:
        answer = errors.LeaseLost
    elif name == "Extend":
        answer = errors.RequestExpired
    server.script[name] = [grpc.StatusCode.UNAVAILABLE, refusal(answer)]
    with pytest.raises(errors.OutcomeUnknown) as caught:
        await MUTATIONS[name](client)
    assert isinstance(caught.value.__cause__, answer)
    assert "because" in str(caught.value)


@pytest.mark.parametrize("name", MUTATIONS)
async def test_a_first_error_is_what_it_says(
    name: str, client: Client, server: FakeServer, timing: FakeTiming
) -> None:
    server.script[name] = [refusal(errors.RequestExpired)]
    with pytest.raises(errors.RequestExpired) as caught:
        await MUTATIONS[name](client)
    assert caught.value.metadata == {"topic": "mail"}
    assert len(server.requests[name]) == 1
    assert not timing.sleeps_s


@pytest.mark.parametrize("name", MUTATIONS)
async def test_invalid_stays_invalid(name: str, client: Client, server: FakeServer) -> None:
    server.script[name] = [grpc.StatusCode.UNAVAILABLE, refusal(errors.InvalidArgument)]
    with pytest.raises(errors.InvalidArgument):
        await MUTATIONS[name](client)


@pytest.mark.parametrize("kind", [errors.LeaseLost, errors.TaskNotFound])
async def test_a_lost_lease_stays_lost(
    kind: type[DdqError], client: Client, server: FakeServer
) -> None:
    server.script["Extend"] = [refusal(errors.WriteOutcomeUnknown), refusal(kind)]
    with pytest.raises(kind):
        await client.extend(LEASE)


def test_the_table_knows_every_rpc() -> None:
    known = {value.name for value in vars(rpcs).values() if isinstance(value, rpcs.Rpc)}
    offered = {
        method.name.removeprefix("Batch")
        for service in (
            pb.DESCRIPTOR.services_by_name["DelayQueueService"],
            admin_pb.DESCRIPTOR.services_by_name["DelayQueueAdminService"],
        )
        for method in service.methods
    }
    # StreamRetrieve is not repeated but subscribed to again.
    assert offered - {"StreamRetrieve"} == known - {"Check"}
    mutations = {
        value.name for value in vars(rpcs).values() if isinstance(value, rpcs.Rpc) and value.mutates
    }
    assert mutations == set(MUTATIONS)


async def test_an_unknown_outcome_at_the_deadline(
    client: Client, server: FakeServer, timing: FakeTiming
) -> None:
    server.script["Ack"] = [refusal(errors.WriteOutcomeUnknown), refusal(errors.StoreUnreachable)]
    with pytest.raises(errors.OutcomeUnknown) as caught:
        await client.ack(LEASE)
    assert isinstance(caught.value.__cause__, errors.StoreUnreachable)
    assert timing.now_s <= 1_010.0
    assert len(server.requests["Ack"]) > 3


async def test_definite_errors_stay_definite_at_the_deadline(
    client: Client, server: FakeServer
) -> None:
    server.script["Ack"] = [refusal(errors.NotEnoughReplicas)]
    with pytest.raises(errors.NotEnoughReplicas):
        await client.ack(LEASE)
    assert len(server.requests["Ack"]) > 3


async def test_the_server_says_how_long_to_wait(
    client: Client, server: FakeServer, timing: FakeTiming
) -> None:
    server.script["Enqueue"] = [refusal(errors.TopicFull, retry_delay_s=3.0), OK]
    await client.enqueue("mail")
    assert len(timing.sleeps_s) == 1
    assert 3.0 <= timing.sleeps_s[0] <= 3.75


async def test_no_wait_beyond_the_deadline(
    client: Client, server: FakeServer, timing: FakeTiming
) -> None:
    server.script["Enqueue"] = [refusal(errors.StoreFull, retry_delay_s=60.0)]
    with pytest.raises(errors.StoreFull):
        await client.enqueue("mail")
    assert not timing.sleeps_s


async def test_reads_have_no_unknown_outcome(client: Client, server: FakeServer) -> None:
    server.script["GetTask"] = [grpc.StatusCode.UNAVAILABLE, refusal(errors.TaskNotFound)]
    with pytest.raises(errors.TaskNotFound):
        await client.get_task("mail", "a")
    server.script["GetTask"] = [grpc.StatusCode.UNAVAILABLE]
    with pytest.raises(errors.TransportError) as caught:
        await client.get_task("mail", "a")
    assert caught.value.metadata["code"] == "UNAVAILABLE"


async def test_a_server_that_is_not_there_is_definite() -> None:
    async with Client("127.0.0.1:1", timeout_s=0.3) as client:
        with pytest.raises(errors.TransportError, match=r"cannot connect to 127\.0\.0\.1:1"):
            await client.enqueue("mail")
        with pytest.raises(errors.TransportError, match="cannot connect"):
            await asyncio.wait_for(client.connect(timeout_s=60.0), timeout=5.0)


async def test_a_refusal_of_the_transport_is_not_repeated(
    client: Client, server: FakeServer
) -> None:
    server.script["Enqueue"] = [grpc.StatusCode.RESOURCE_EXHAUSTED]
    with pytest.raises(errors.OutcomeUnknown):
        await client.enqueue("mail")
    server.script["Ack"] = [grpc.StatusCode.UNIMPLEMENTED]
    with pytest.raises(errors.Unimplemented):
        await client.ack(LEASE)
    assert len(server.requests["Enqueue"]) == len(server.requests["Ack"]) == 1


async def test_reasons_of_a_newer_server_belong_to_their_code(
    client: Client, server: FakeServer
) -> None:
    server.script["Enqueue"] = [refusal(errors.TopicExists, reason="MADE_UP_LATER")]
    with pytest.raises(errors.AlreadyExists) as caught:
        await client.enqueue("mail")
    assert type(caught.value) is errors.AlreadyExists


async def test_a_payload_over_the_limit_is_not_sent(client: Client, server: FakeServer) -> None:
    with pytest.raises(errors.PayloadTooLarge, match="4194304"):
        await client.enqueue("mail", b"x" * 5_000_000)
    assert not server.requests["Enqueue"]


async def test_cancellation_passes_through(server: FakeServer) -> None:
    arrived = asyncio.Event()

    async def hang(_: object) -> pb.AckResponse:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    server.script["Ack"] = [hang]
    async with Client(server.address) as client:
        call = asyncio.create_task(client.ack(LEASE))
        await arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_closing_ends_calls_under_way(server: FakeServer) -> None:
    arrived = asyncio.Event()

    async def hang(_: object) -> pb.AckResponse:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    server.script["Ack"] = [hang]
    client = Client(server.address)
    call = asyncio.create_task(client.ack(LEASE))
    await arrived.wait()
    await client.close()
    with pytest.raises(errors.OutcomeUnknown, match="closed"):
        await call
    with pytest.raises(RuntimeError, match="closed"):
        await client.ack(LEASE)


async def test_purge_goes_on_until_it_is_done(client: Client, server: FakeServer) -> None:
    server.script["PurgeTopic"] = [
        admin_pb.PurgeTopicResponse(done=False, purged=500),
        grpc.StatusCode.UNAVAILABLE,
        admin_pb.PurgeTopicResponse(done=True, purged=7),
    ]
    assert await client.purge_topic("mail") == 507
    assert len({request.request_id for request in server.requests["PurgeTopic"]}) == 1


@pytest.mark.parametrize(
    ("method", "steps"),
    [
        ("PurgeTopic", admin_pb.PurgeTopicResponse(done=False, purged=500)),
        ("DeleteTopic", admin_pb.DeleteTopicResponse(done=False, purged=500)),
        ("RedriveDeadTasks", admin_pb.RedriveDeadTasksResponse(done=False, redriven=500)),
    ],
)
async def test_an_error_of_a_later_step_does_not_speak_for_the_earlier_ones(
    method: str, steps: Message, client: Client, server: FakeServer
) -> None:
    server.script[method] = [steps, refusal(errors.TopicNotFound)]
    with pytest.raises(errors.OutcomeUnknown, match="done in part, for 500 tasks"):
        await MUTATIONS[method](client)
    server.script[method] = [refusal(errors.TopicNotFound)]
    with pytest.raises(errors.TopicNotFound):
        await MUTATIONS[method](client)


def test_backoff_grows_to_its_bound() -> None:
    backoff = Backoff(initial_s=0.1, max_s=1.0)
    assert [backoff.delay_s(attempts, None, 1.0) for attempts in (1, 2, 3, 4, 5, 5_000)] == [
        pytest.approx(value) for value in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0)
    ]
    assert backoff.delay_s(1, None, 0.0) == pytest.approx(0.05)
    assert backoff.delay_s(1, 5.0, 0.0) == pytest.approx(5.0)


def test_a_history_judges_by_all_its_attempts() -> None:
    history = History(rpcs.NACK, "Nack mail/a")
    unknown = Failure(errors.WriteOutcomeUnknown("?"), definite=False, repeatable=True)
    assert history.record(unknown) is None
    lost = Failure(errors.LeaseLost("lost"), definite=True, repeatable=False)
    assert isinstance(history.record(lost), errors.OutcomeUnknown)
