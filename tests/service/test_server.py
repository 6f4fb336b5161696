"""The server around the services: reflection, health, draining, and how it refuses to start."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from ddq.config import Settings, StartupError
from ddq.scheduler.process import SchedulerOptions, run_scheduler
from ddq.server import ServerOptions, run_server
from ddq.server.service import QueueService
from ddq.store.embedded import EmbeddedStore, StoreStartError
from ddq.store.keys import ShardId
from ddq.store.records import FORMAT
from ddq.store.runner import Call
from ddq.v1 import delay_queue_service_pb2 as pb
from tests.support.rpc import DEADLINE_S, Producer, failure_of, seconds
from tests.support.server import RunningServer, scheduling, serving
from tests.support.store import StoreServer, own_store

SERVICES = {
    "ddq.v1.DelayQueueService",
    "ddq.v1.DelayQueueAdminService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
}


def by_reflection(address: str) -> tuple[set[str], bool, bytes]:
    """Enqueues and retrieves with nothing but what the server says of itself."""
    with grpc.insecure_channel(address) as channel:
        database: Any = ProtoReflectionDescriptorDatabase(channel)
        services = set(database.get_services())
        pool = DescriptorPool(database)
        service = pool.FindServiceByName("ddq.v1.DelayQueueService")

        def call(name: str, **fields: Any) -> Any:
            method = service.FindMethodByName(name)
            invoke = channel.unary_unary(
                f"/{service.full_name}/{name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )
            request: Any = GetMessageClass(method.input_type)(**fields)
            return invoke(request, timeout=DEADLINE_S)

        task = {"id": "a", "payload": b"\x00\xff", "delay": {"nanos": 100_000_000}}
        created = call("Enqueue", topic="jobs", task=task).result.created
        reply = call("Retrieve", topics=["jobs"], wait={"seconds": 20})
        return services, created, reply.tasks[0].task.payload


async def test_a_client_needs_nothing_but_reflection(server: RunningServer) -> None:
    services, created, payload = await asyncio.to_thread(by_reflection, server.address)
    assert services == SERVICES
    assert (created, payload) == (True, b"\x00\xff")


@pytest.mark.parametrize(
    "service", ["", "ddq.v1.DelayQueueService", "ddq.v1.DelayQueueAdminService"]
)
async def test_health_says_when_the_server_stops(service: str) -> None:
    serving_status = health_pb2.HealthCheckResponse.SERVING
    settings = Settings(drain_ms=5_000)
    async with own_store() as store, serving(store, settings) as server:
        stub: Any = health_pb2_grpc.HealthStub(server.channel)
        updates: Any = stub.Watch(
            health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_S
        )

        async def until(wanted: int) -> None:
            async for update in updates:
                if update.status == wanted:
                    return

        await until(serving_status)
        server.stop.set()
        await until(health_pb2.HealthCheckResponse.NOT_SERVING)
        updates.cancel()


async def test_an_unknown_service_has_no_health(server: RunningServer) -> None:
    stub: Any = health_pb2_grpc.HealthStub(server.channel)
    failure = await failure_of(stub.Check(health_pb2.HealthCheckRequest(service="other")))
    assert failure.code == "NOT_FOUND"


FOR_EVER_MS = 3_600_000
"""A drain that waits for what has no end would outlast every test."""


@contextlib.contextmanager
def held_call() -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """A GetTask stays in its handler until the second event is set; the first: it is there."""
    reached, go_on = asyncio.Event(), asyncio.Event()
    get_task = QueueService.get_task

    async def hold(self: QueueService, request: pb.GetTaskRequest, call: Call) -> Any:
        reached.set()
        await go_on.wait()
        return await get_task(self, request, call)

    with mock.patch.object(QueueService, "get_task", hold):
        yield reached, go_on


async def test_a_stopping_server_lets_running_calls_finish(store_server: StoreServer) -> None:
    with held_call() as (reached, go_on):
        async with serving(store_server, Settings(drain_ms=FOR_EVER_MS)) as server:
            producer = Producer(server.queue)
            await producer.add("a", delay=seconds(3_600))
            request = pb.GetTaskRequest(topic="jobs", id="a")
            running = asyncio.ensure_future(server.queue.GetTask(request, timeout=DEADLINE_S))
            await reached.wait()
            server.stop.set()

            async def add_until_refused() -> None:
                while True:
                    await producer.add("late")

            failure = await failure_of(add_until_refused())
            # gRPC cancels a call that has arrived and was not given to a handler yet.
            assert failure.code in {"UNAVAILABLE", "CANCELLED"}
            assert not server.task.done()
            go_on.set()
            assert (await running).task.id == "a"
            async with asyncio.timeout(DEADLINE_S):
                await server.task


async def test_a_stopping_server_answers_those_that_wait_for_a_task_at_once(
    store_server: StoreServer,
) -> None:
    """An idle worker polls for up to a minute, and container engines wait for ten seconds."""
    async with serving(store_server, Settings(drain_ms=FOR_EVER_MS)) as server:
        await Producer(server.queue).add("far", delay=seconds(3_600))
        calls = store_server.script_calls()
        waiting = [
            asyncio.ensure_future(
                server.queue.Retrieve(
                    pb.RetrieveRequest(topics=topics, wait=seconds(60)), timeout=2 * 60
                )
            )
            for topics in (["jobs"], ["jobs", "none-yet"])
        ]
        async with asyncio.timeout(DEADLINE_S):
            while store_server.script_calls() < calls + 3:  # noqa: ASYNC110 - it has reached the store
                await asyncio.sleep(0.01)
        server.stop.set()
        async with asyncio.timeout(DEADLINE_S):
            for reply in await asyncio.gather(*waiting):
                assert not reply.tasks
            await server.task


async def test_streams_without_an_end_do_not_keep_a_stopping_server(
    store_server: StoreServer,
) -> None:
    """A client that watches its server's health, and a tool that has asked for its services."""
    async with serving(store_server, Settings(drain_ms=FOR_EVER_MS)) as server:
        channel: Any = server.channel
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        assert await watch.read() == b"\x08\x01"
        reflect = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        )()
        await reflect.write(b"\x3a\x00")
        await reflect.read()
        server.stop.set()
        assert await watch.read() == b"\x08\x02", "the health service reports NOT_SERVING"
        async with asyncio.timeout(DEADLINE_S):
            for stream in (watch, reflect):
                assert await stream.code() == grpc.StatusCode.UNAVAILABLE
                assert await stream.details() == "the server is stopping"
            await server.task


async def test_a_stopping_server_hands_its_shards_over_before_it_has_drained(
    store_server: StoreServer,
) -> None:
    """A supervisor may kill it while a call still runs."""
    with held_call() as (reached, go_on):
        async with serving(store_server, Settings(drain_ms=FOR_EVER_MS)) as server:
            producer = Producer(server.queue)
            await producer.take_one("a")
            request = pb.GetTaskRequest(topic="jobs", id="a")
            running = asyncio.ensure_future(server.queue.GetTask(request, timeout=DEADLINE_S))
            await reached.wait()
            server.stop.set()
            async with asyncio.timeout(DEADLINE_S):
                while store_server.sync.hexists("ddq:control:{jobs}", "nonce"):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert not server.task.done()
            go_on.set()
            await running


async def test_a_stopping_server_hands_its_leadership_over(store_server: StoreServer) -> None:
    async with serving(store_server) as server:
        await Producer(server.queue).take_one("a")
    control: Any = store_server.sync.hgetall("ddq:control:{jobs}")
    assert b"nonce" not in control
    async with serving(store_server) as server:
        await Producer(server.queue).take_one("b")
    control = store_server.sync.hgetall("ddq:control:{jobs}")
    assert control[b"epoch"] == b"2"


async def test_two_schedulers_share_the_work_and_one_takes_over(store_server: StoreServer) -> None:
    settings = Settings(drain_ms=1, leader_lease_ms=500)
    async with serving(store_server, settings) as one, serving(store_server, settings) as two:
        producer = Producer(two.queue)
        for i in range(20):
            await producer.take_one(f"t{i}")
        one.stop.set()
        await one.task
        for i in range(20, 40):
            await producer.take_one(f"t{i}")
        control: Any = store_server.sync.hgetall("ddq:control:{jobs}")
        assert int(control[b"n:leased"]) == 40


async def test_a_server_leaves_scheduling_to_schedulers(store_server: StoreServer) -> None:
    """Unless it is asked to schedule, or has a store of its own as in `ddq demo`."""
    async with serving(store_server, scheduler=None) as server:
        await Producer(server.queue).add("a")
        request = pb.RetrieveRequest(topics=["jobs"], wait=seconds(0.3))
        assert not (await server.queue.Retrieve(request, timeout=DEADLINE_S)).tasks
        async with scheduling(store_server):
            (leased,) = await Producer(server.queue).take()
            assert leased.task.id == "a"


async def test_a_scheduler_alone_has_no_use_for_a_store_of_its_own() -> None:
    with pytest.raises(StartupError, match="ddq serve --store embedded:somewhere"):
        await run_scheduler(
            SchedulerOptions("embedded:somewhere"), stop=asyncio.Event(), on_ready=lambda _: None
        )


class Said(logging.Handler):
    """Keeps what was logged, and says when something was."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self.something = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.something.set()


@contextlib.contextmanager
def listening_to_log() -> Iterator[Said]:
    """Until the block ends."""
    said = Said()
    logger = logging.getLogger("ddq.store.startup")
    logger.addHandler(said)
    try:
        yield said
    finally:
        logger.removeHandler(said)


@pytest.mark.parametrize("program", [run_server, run_scheduler])
async def test_a_program_that_starts_before_its_store_waits_for_it(program: Any) -> None:
    with TemporaryDirectory(prefix="ddq-test-") as folder, listening_to_log() as said:
        embedded = EmbeddedStore(Path(folder), sync_always=False)
        url, settings = f"unix://{embedded.socket_path}", Settings(drain_ms=1)
        options: Any = (
            ServerOptions("127.0.0.1:0", url, settings=settings)
            if program is run_server
            else SchedulerOptions(url, settings)
        )
        stop, ready = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(program(options, stop=stop, on_ready=lambda _: ready.set()))
        async with asyncio.timeout(DEADLINE_S):
            await said.something.wait()
            assert not running.done()
            await embedded.start()
            try:
                await ready.wait()
                stop.set()
                await running
            finally:
                await embedded.stop()
        assert f"waiting for the store at {url}?db=0, for up to " in said.lines[0]
        assert "No such file" in said.lines[0], "the real reason"
        assert "replica" not in said.lines[0], "a single server has none"


async def test_a_program_that_waits_for_its_store_can_be_stopped() -> None:
    stop = asyncio.Event()
    options = ServerOptions("127.0.0.1:0", "unix:///nowhere.sock")
    with listening_to_log() as said:
        running = asyncio.create_task(run_server(options, stop=stop, on_ready=lambda _: None))
        async with asyncio.timeout(DEADLINE_S):
            await said.something.wait()
            stop.set()
            with pytest.raises(StartupError, match="stopped while it waited"):
                await running


async def test_an_embedded_store_has_the_time_of_the_setting_to_load_its_data() -> None:
    with TemporaryDirectory(prefix="ddq-test-") as folder:
        settings = Settings(store_wait_ms=1)
        options = ServerOptions("127.0.0.1:0", f"embedded:{folder}", settings=settings)
        with pytest.raises(StoreStartError, match=r"within 0\.001 s.*--store-wait-ms"):
            await run_server(options, stop=asyncio.Event(), on_ready=lambda _: None)


async def test_an_embedded_store_that_loads_its_data_does_not_keep_a_program_from_stopping() -> (
    None
):
    loads, stop = asyncio.Event(), asyncio.Event()

    async def never(self: EmbeddedStore) -> bool:
        loads.set()
        return False

    with (
        TemporaryDirectory(prefix="ddq-test-") as folder,
        mock.patch.object(EmbeddedStore, "_answers", never),
    ):
        options = ServerOptions("127.0.0.1:0", f"embedded:{folder}")
        running = asyncio.create_task(run_server(options, stop=stop, on_ready=lambda _: None))
        async with asyncio.timeout(DEADLINE_S):
            await loads.wait()
            stop.set()
            with pytest.raises(StartupError, match="stopped while the embedded store loaded"):
                await running


async def run(listen: str, store_url: str, settings: Settings | None = None) -> None:
    settings = replace(settings or Settings(), store_wait_ms=1)
    options = ServerOptions(listen, store_url, settings=settings)
    async with asyncio.timeout(DEADLINE_S):
        await run_server(options, stop=asyncio.Event(), on_ready=lambda _: None)


@pytest.mark.parametrize(
    ("listen", "store_url", "settings", "words"),
    [
        ("nowhere", "unix", Settings(), "HOST:PORT"),
        ("127.0.0.1:x", "unix", Settings(), "HOST:PORT"),
        ("127.0.0.1:70000", "unix", Settings(), "HOST:PORT"),
        ("203.0.113.7:50051", "unix", Settings(insecure=True), "not this machine's"),
        ("127.0.0.1:0", "mysql://x", Settings(), "redis://HOST:PORT/DB"),
        ("127.0.0.1:0", "embedded:", Settings(), "embedded:FOLDER"),
        ("127.0.0.1:0", "redis://127.0.0.1:1/0", Settings(), "redis://127.0.0.1:1/0"),
        ("127.0.0.1:0", "unix:///nowhere.sock", Settings(), "unix:///nowhere.sock"),
        ("127.0.0.1:0", "sentinel://127.0.0.1:1/main", Settings(), "no Sentinel names the master"),
        ("127.0.0.1:0", "cluster://127.0.0.1:1", Settings(), "no node of the Cluster answers"),
        ("127.0.0.1:0", "rediss://store?ca_file=/none", Settings(), "ca_file '/none' cannot be"),
        ("127.0.0.1:0", "cluster://a", Settings(store_address_map="x"), "address map entry 'x'"),
        ("127.0.0.1:0", "unix", Settings(drain_ms=0), "drain_ms"),
        ("127.0.0.1:0", "unix", Settings(max_request_age_ms=10**10), "max_request_age_ms"),
    ],
)
async def test_invalid_settings_are_reported_in_one_line(
    store_server: StoreServer, listen: str, store_url: str, settings: Settings, words: str
) -> None:
    url = store_server.url if store_url == "unix" else store_url
    with pytest.raises(StartupError) as caught:
        await run(listen, url, settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_taken_port_is_said(server: RunningServer, store_server: StoreServer) -> None:
    with pytest.raises(StartupError, match="in use"):
        await run(server.address, store_server.url)


async def test_a_store_of_another_kind_is_said(store_server: StoreServer) -> None:
    store_server.sync.set("ddq:topics", "by hand")
    with pytest.raises(StartupError, match="ddq:topics"):
        await run("127.0.0.1:0", store_server.url)


async def test_a_broken_topic_does_not_keep_the_server_from_the_others(
    store_server: StoreServer, caplog: pytest.LogCaptureFixture
) -> None:
    store_server.sync.hset("ddq:topics", "broken", b"\xff" * 40)
    async with serving(store_server) as server:
        await Producer(server.queue).take_one("a")
        failure = await failure_of(Producer(server.queue, "broken").add("a"))
        assert failure.reason == "STORE_MALFORMED"
        # A shard that is damaged later does not stop the scheduler either.
        # It looks there when the next task is due, and only then at the other topic.
        await Producer(server.queue).add("soon", delay=seconds(0.3))
        await Producer(server.queue, "other").add("later", delay=seconds(0.6))
        store_server.sync.delete("ddq:ready:{jobs}")
        store_server.sync.set("ddq:ready:{jobs}", "by hand")
        failure = await failure_of(Producer(server.queue).add("b"))
        assert failure.reason == "STORE_MALFORMED"
        (leased,) = await Producer(server.queue, "other").take()
        assert leased.task.id == "later"
        assert "left out" in caplog.text


async def test_a_server_on_a_topic_of_a_newer_format_says_so_and_serves_the_others(
    store_server: StoreServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(store_server, scheduler=False) as server:
        await Producer(server.queue).add("kept")
    control = ShardId("jobs", 0).key("control")
    store_server.sync.hset(control, "format", FORMAT + 1)
    before = store_server.sync.hgetall(control)
    async with serving(store_server) as server:
        failure = await failure_of(Producer(server.queue).add("a"))
        assert failure.reason == "STORE_MALFORMED"
        assert "use a newer ddq" in failure.message
        await Producer(server.queue, "other").take_one("b")
        assert f"format {FORMAT + 1}, which this ddq does not know; use a newer ddq" in caplog.text
    assert store_server.sync.hgetall(control) == before


async def test_an_embedded_store_that_ends_takes_the_server_down_loudly() -> None:
    with TemporaryDirectory(prefix="ddq-test-") as folder:
        ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        options = ServerOptions("127.0.0.1:0", f"embedded:{folder}", settings=Settings(drain_ms=1))
        task = asyncio.create_task(
            run_server(options, stop=asyncio.Event(), on_ready=ready.set_result)
        )
        async with asyncio.timeout(DEADLINE_S):
            await ready
            store = StoreServer(Path(folder) / "valkey.sock")
            process: Any = store.sync.info("server")
            store.sync.close()
            os.kill(process["process_id"], signal.SIGKILL)
            with pytest.raises(StoreStartError, match="ended by itself"):
                await task
