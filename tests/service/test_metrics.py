"""What Prometheus gets from processes that run, and that each figure moves when it should."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

import grpc.aio
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ddq.config import Settings, StartupError
from ddq.metrics import Metrics, specs
from ddq.scheduler.process import SchedulerOptions, run_scheduler
from ddq.store.connection import Command, NotSentError, Reply, ReplyLostError
from ddq.store.metered import MeteredConnection
from ddq.v1 import delay_queue_service_pb2 as pb
from tests.support.rpc import DEADLINE_S, Producer, failure_of, seconds
from tests.support.server import scheduling, serving
from tests.support.store import StoreServer

Figures = Mapping[str, float]
FREE = "127.0.0.1:0"


def read(address: str | None) -> Figures:
    """All samples, as Prometheus writes them: name{label="value"}."""
    assert address is not None
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=DEADLINE_S) as reply:
        text = reply.read().decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def scrape(address: str | None) -> Figures:
    """The same without keeping the server from answering."""
    return await asyncio.to_thread(read, address)


async def test_the_figures_of_a_server_and_a_scheduler(store_server: StoreServer) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            serving(store_server, scheduler=None, metrics=FREE)
        )
        scheduler = await stack.enter_async_context(
            scheduling(store_server, Settings(sweep_interval_ms=200), metrics=FREE)
        )
        producer = Producer(server.queue)
        await producer.take_one("a", delay=seconds(0.2))
        await producer.add("b")
        await producer.take(1, lease_duration=seconds(0.1))
        again = await producer.take(1)
        assert [leased.task.id for leased in again] == ["b"], "its lease expired"
        assert (await failure_of(producer.add("x" * 300))).code == "INVALID_ARGUMENT"

        served = await scrape(server.metrics)
        assert served["ddq_serving"] == 1
        assert served['ddq_rpcs_total{code="OK",method="Enqueue",reason=""}'] == 2
        refused = 'ddq_rpcs_total{code="INVALID_ARGUMENT",method="Enqueue",reason='
        assert sum(value for name, value in served.items() if name.startswith(refused)) == 1
        assert served['ddq_rpc_seconds_count{method="Enqueue"}'] == 3
        assert served['ddq_rpc_seconds_sum{method="Retrieve"}'] > 0.1, "it waited"
        assert served['ddq_rpcs_running{method="Retrieve"}'] == 0
        assert served["ddq_store_requests_running"] == 0
        assert served["ddq_store_send_commands_count"] == served["ddq_store_send_seconds_count"] > 5
        assert served["ddq_scheduler_promoted_total"] == 0
        assert served["ddq_delivery_lateness_seconds_count"] == 3
        assert served["ddq_delivery_lateness_seconds_sum"] < DEADLINE_S
        assert served["process_cpu_seconds_total"] > 0

        async with asyncio.timeout(DEADLINE_S):
            # The next sweep sees what has become of them.
            while (figures := await scrape(scheduler.metrics))[LEASED] < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert figures["ddq_scheduler_promoted_total"] == 3
        assert figures["ddq_scheduler_reaped_total"] == 1
        assert figures["ddq_scheduler_lateness_seconds_count"] == 3
        assert figures["ddq_scheduler_lateness_seconds_sum"] < DEADLINE_S
        assert figures["ddq_scheduler_shards"] == figures["ddq_scheduler_shards_led"] == 1
        assert figures["ddq_scheduler_acquired_total"] == 1
        assert figures["ddq_scheduler_sweeps_total"] > 1
        assert figures['ddq_tasks{state="ready"}'] == 0
        assert figures['ddq_tasks_counted{state="enqueued"}'] == 2
        assert figures["ddq_conservation_difference_tasks"] == 0

        # Another scheduler leads now, as the keys say.
        store_server.sync.hset(
            "ddq:control:{jobs}", mapping={"nonce": "other", "leader_until_ms": 0}
        )
        await producer.take_one("c")
        figures = await scrape(scheduler.metrics)
        assert figures["ddq_scheduler_deposed_total"] == 1
        assert figures["ddq_scheduler_acquired_total"] == 2
        text = "\n".join({**served, **figures})
        for spec in specs().values():
            assert spec.name in text, f"{spec.name} is not shown"
        assert figures['ddq_topic_tasks{state="leased",topic="jobs"}'] == 2
        named = {name for name in {**served, **figures} if "jobs" in name}
        assert named == {
            'ddq_topic_oldest_ready_age_seconds{topic="jobs"}',
            *(
                f'ddq_topic_tasks{{state="{state}",topic="jobs"}}'
                for state in ("scheduled", "ready", "leased", "dead")
            ),
        }, "another label has values that users choose"


LEASED = 'ddq_tasks{state="leased"}'


async def test_items_that_the_store_refuses_are_counted_by_reason(
    store_server: StoreServer,
) -> None:
    async with serving(store_server, metrics=FREE) as server:
        producer = Producer(server.queue)
        leased = await producer.take_one("a")
        token, stale = leased.lease_token, b"x" * 16
        items = [
            pb.BatchAckItem(id=id_, lease_token=which)
            for id_, which in (("a", stale), ("b", token))
        ]
        await server.queue.BatchAck(pb.BatchAckRequest(topic="jobs", items=items))
        await server.queue.Ack(pb.AckRequest(topic="jobs", id="a", lease_token=token))
        with pytest.raises(grpc.aio.AioRpcError, match="no longer holds"):
            await server.queue.Ack(pb.AckRequest(topic="jobs", id="a", lease_token=stale))
        served = await scrape(server.metrics)
        found = {
            name.split('"')[1]: value
            for name, value in served.items()
            if name.startswith("ddq_items_refused_total") and value
        }
        assert found == {"LEASE_LOST": 2, "TASK_NOT_FOUND": 1}


async def test_a_store_that_refuses_is_counted_by_its_reason(
    store_server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddq.store.watching.HEALTH_INTERVAL_S", 0.02)
    refusals = 'ddq_store_errors_total{reason="NOT_ENOUGH_REPLICAS"}'
    async with serving(store_server, scheduler=None, metrics=FREE) as server:
        await Producer(server.queue).add("a")
        assert (await scrape(server.metrics))[refusals] == 0
        store_server.sync.config_set("min-replicas-to-write", 1)
        try:
            failure = await failure_of(Producer(server.queue).add("b"))
            assert failure.reason == "NOT_ENOUGH_REPLICAS"
            async with asyncio.timeout(DEADLINE_S):
                while (figures := await scrape(server.metrics))["ddq_serving"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        finally:
            store_server.sync.config_set("min-replicas-to-write", 0)
        assert figures[refusals] >= 1
        name = 'ddq_rpcs_total{code="UNAVAILABLE",method="Enqueue",reason="NOT_ENOUGH_REPLICAS"}'
        assert figures[name] == 1


async def test_barriers_and_sends_that_failed_are_counted() -> None:
    class Inner:
        """A runner that raises ``error``, if there is one."""

        error: Exception | None = None

        async def send(self, commands: Sequence[Command], timeout_s: float) -> list[Reply]:
            if self.error:
                raise self.error
            return [b"OK"] * len(commands)

        async def close(self) -> None: ...

    inner, metrics = Inner(), Metrics()
    metered = MeteredConnection(inner, metrics)
    assert await metered.send([("EVALSHA", "x"), ("WAIT", 1, 10)], 1.0) == [b"OK"] * 2
    await metered.send([("EVALSHA", "x")], 1.0)
    for error in (NotSentError("x"), ReplyLostError("x")):
        inner.error = error
        with pytest.raises(type(error)):
            await metered.send([("PING",)], 1.0)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    assert value("ddq_barrier_waits_total") == value("ddq_barrier_seconds_count") == 1
    assert value("ddq_store_sends_failed_total", how="unsent") == 1
    assert value("ddq_store_sends_failed_total", how="lost") == 1
    assert value("ddq_store_send_commands_sum") == 5
    assert value("ddq_store_send_seconds_count") == 2


async def test_an_address_that_cannot_be_used_is_said(store_server: StoreServer) -> None:
    async with scheduling(store_server, metrics=FREE) as first:
        options = SchedulerOptions(store_server.url, metrics_listen=first.metrics)
        with pytest.raises(StartupError, match=r"for metrics: .*in use"):
            await run_scheduler(options, stop=asyncio.Event(), on_ready=lambda _: None)


def test_names_follow_the_conventions_of_prometheus() -> None:
    for name, kind in Metrics.__annotations__.items():
        spec = specs().get(name)
        if spec is None:
            continue
        assert spec.name.startswith("ddq_")
        assert spec.name.endswith("_total") == (kind == "Counter"), spec.name
        assert bool(spec.buckets) == (kind == "Histogram"), spec.name
        assert spec.process in {"all", "server", "scheduler"}, spec.name
