"""One trace from the producer through server and store to the worker, over real gRPC."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from ddq import tracing
from ddq.client import Client, NewTask
from ddq.config import Settings, StartupError
from ddq.errors import TaskNotFound
from ddq.task import OnConflict
from ddq.worker import Job, Retry, Snooze, Worker
from tests.support.rpc import DEADLINE_S
from tests.support.server import RunningServer, serving
from tests.support.store import StoreServer

WAIT = timedelta(seconds=10)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """The spans of this process: client, server and worker."""
    made = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(made))
    tracing.enable(provider)
    try:
        yield made
    finally:
        tracing.disable()


@pytest.fixture
async def client(server: RunningServer) -> Any:
    async with Client(server.address) as made:
        yield made


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def the(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    found = named(exporter, name)
    assert len(found) == 1, [span.name for span in exporter.get_finished_spans()]
    return found[0]


def served_spans(exporter: InMemorySpanExporter, method: str) -> list[ReadableSpan]:
    found = named(exporter, f"ddq.v1.DelayQueueService/{method}")
    return [span for span in found if span.kind is SpanKind.SERVER]


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    assert span.parent is not None
    return span.parent.span_id == parent.context.span_id and same_trace(span, parent)


def ids(contexts: Iterable[trace.SpanContext]) -> list[tuple[int, int]]:
    return [(context.trace_id, context.span_id) for context in contexts]


def linked(*spans: ReadableSpan) -> list[tuple[int, int]]:
    return ids(link.context for span in spans for link in span.links)


def same_trace(*spans: ReadableSpan) -> bool:
    return len({span.context.trace_id for span in spans}) == 1


async def work(client: Client, count: int, handler: Any) -> None:
    await Worker(client, "mail", handler, max_jobs=count).run()


async def test_one_trace_leads_from_the_producer_to_the_worker(
    client: Client, exporter: InMemorySpanExporter
) -> None:
    seen: list[trace.SpanContext] = []

    async def handle(job: Job) -> None:
        seen.append(trace.get_current_span().get_span_context())

    await client.enqueue("mail", b"x", task_id="one")
    await work(client, 1, handle)

    create, send = the(exporter, "create mail"), the(exporter, "send mail")
    served = the(exporter, "ddq.v1.DelayQueueService/Enqueue")
    script, process = the(exporter, "script enqueue"), the(exporter, "process mail")
    assert same_trace(create, send, served, script, process)
    assert is_child(send, create)
    assert is_child(served, send)
    assert is_child(script, served)
    assert is_child(process, create)
    assert seen == [process.context], "what the handler does is part of it"
    kinds = [span.kind for span in (create, send, served, script, process)]
    assert kinds == [
        SpanKind.PRODUCER, SpanKind.CLIENT, SpanKind.SERVER, SpanKind.CLIENT, SpanKind.CONSUMER,
    ]  # fmt: skip
    assert linked(process) == ids([create.context])
    assert process.attributes is not None
    assert dict(process.attributes) == {
        "messaging.system": "ddq",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": "mail",
        "messaging.message.id": "one",
        "messaging.message.delivery_attempt": 1,
    }
    assert linked(*named(exporter, "receive mail")) == ids([create.context])


async def test_a_span_of_the_producer_is_the_parent(
    client: Client, exporter: InMemorySpanExporter
) -> None:
    with trace.use_span(trace.NonRecordingSpan(_context())):
        await client.enqueue("mail", b"x")
    for name in ("create mail", "send mail"):
        span = the(exporter, name)
        assert span.parent is not None
        assert f"{span.parent.trace_id:032x}" == TRACEPARENT.split("-")[1]


def _context() -> trace.SpanContext:
    _, trace_id, span_id, _ = TRACEPARENT.split("-")
    return trace.SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=trace.TraceFlags(1)
    )


async def test_a_batch_is_linked_to_the_creation_of_each_of_its_tasks(
    client: Client, exporter: InMemorySpanExporter
) -> None:
    await client.enqueue_batch("mail", [NewTask(b"x", id=str(n)) for n in range(3)])
    creates, send = named(exporter, "create mail"), the(exporter, "send mail")
    assert linked(send) == ids(span.context for span in creates)
    assert send.attributes is not None
    assert send.attributes["messaging.batch.message_count"] == 3
    assert is_child(the(exporter, "ddq.v1.DelayQueueService/BatchEnqueue"), send)
    leases = await client.retrieve("mail", max_tasks=3, wait=WAIT)
    receive = the(exporter, "receive mail")
    assert linked(receive) == ids(span.context for span in creates if len(leases) == 3)


async def test_a_context_that_a_program_sets_by_itself_stays(
    client: Client, exporter: InMemorySpanExporter
) -> None:
    await client.enqueue("mail", b"x", headers={"traceparent": TRACEPARENT})
    (lease,) = await client.retrieve("mail", wait=WAIT)
    assert lease.task.headers == {"traceparent": TRACEPARENT}
    assert not named(exporter, "create mail")


async def test_the_trace_does_not_belong_to_the_identity_of_a_task(
    client: Client, exporter: InMemorySpanExporter
) -> None:
    """A producer that was restarted enqueues the same task again, in another trace."""
    first = await client.enqueue("mail", b"x", task_id="a", headers={"k": "v"})
    again = await client.enqueue("mail", b"x", task_id="a", headers={"k": "v"})
    assert (first.created, again.created) == (True, False)
    assert len(named(exporter, "create mail")) == 2
    tracing.disable()
    untraced = await client.enqueue("mail", b"x", task_id="a", headers={"k": "v"})
    assert untraced.created is False


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ZeroDivisionError("x"), StatusCode.ERROR),
        (Retry("x"), StatusCode.ERROR),
        (Snooze(timedelta(hours=1)), StatusCode.UNSET),
        (None, StatusCode.UNSET),
    ],
)
@pytest.mark.parametrize("is_async", [True, False])
async def test_the_end_of_a_handler_is_that_of_its_span(
    error: Exception | None,
    status: StatusCode,
    is_async: bool,
    client: Client,
    exporter: InMemorySpanExporter,
) -> None:
    def handle(_: Job) -> None:
        if error is not None:
            raise error

    async def handle_async(job: Job) -> None:
        handle(job)

    await client.enqueue("mail", b"x")
    await work(client, 1, handle_async if is_async else handle)
    process = the(exporter, "process mail")
    assert process.status.status_code is status
    assert bool(process.events) == (status is StatusCode.ERROR)
    assert same_trace(process, the(exporter, "create mail"))


async def test_a_refusal_is_on_the_span_and_no_error_of_the_server(
    client: Client, exporter: InMemorySpanExporter
) -> None:
    await client.enqueue("mail", b"x", on_conflict=OnConflict.RETURN_EXISTING)
    with pytest.raises(TaskNotFound):
        await client.cancel("mail", "other")
    async with asyncio.timeout(DEADLINE_S):
        # The status leaves before the span has ended.
        while not (found := served_spans(exporter, "Cancel")):  # noqa: ASYNC110
            await asyncio.sleep(0)
    (served,) = found
    assert served.attributes is not None
    assert served.attributes["rpc.grpc.status_code"] == 5
    assert served.attributes["error.type"] == "TASK_NOT_FOUND"
    assert served.status.status_code is StatusCode.UNSET


async def test_without_traces_nothing_is_added(client: Client) -> None:
    await client.enqueue("mail", b"x")
    (lease,) = await client.retrieve("mail", wait=WAIT)
    assert lease.task.headers == {}


PRODUCER = """
import asyncio, json, sys
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from ddq import tracing
from ddq.client import Client

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
tracing.enable(provider)

async def main():
    async with Client(sys.argv[1]) as client:
        await client.enqueue("mail", b"x")

asyncio.run(main())
spans = exporter.get_finished_spans()
print(json.dumps({span.name: f"{span.context.trace_id:032x}" for span in spans}))
"""


async def test_the_trace_crosses_processes(
    server: RunningServer, client: Client, exporter: InMemorySpanExporter
) -> None:
    """The producer is another process; server and worker are this one."""
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", PRODUCER, server.address],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    sent = json.loads(ran.stdout)
    assert sent.keys() == {"create mail", "send mail"}
    await work(client, 1, lambda _: None)
    here = [the(exporter, "ddq.v1.DelayQueueService/Enqueue"), the(exporter, "process mail")]
    found = {f"{span.context.trace_id:032x}" for span in here}
    assert found == set(sent.values())


async def test_a_server_sends_its_spans_by_otlp(
    store_server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[bytes] = []

    async def export(request: bytes, _: object) -> bytes:
        received.append(request)
        return b""

    collector = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(export)
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    collector.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {"Export": handler}),)
    )
    port = collector.add_insecure_port("127.0.0.1:0")
    await collector.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    try:
        async with (
            serving(store_server, Settings(drain_ms=1, traces=True)) as server,
            Client(server.address) as client,
        ):
            await client.enqueue("mail", b"x")
    finally:
        await collector.stop(0)
    sent = b"".join(received)
    assert b"ddq-server" in sent
    assert b"ddq.v1.DelayQueueService/Enqueue" in sent
    assert b"script enqueue" in sent
    assert tracing.current is None


async def test_without_the_packages_it_is_said_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(StartupError, match=r"pip install 'ddq\[otel\]'"):
        tracing.enable()
    with pytest.raises(StartupError, match=r"pip install 'ddq\[otel\]'"):
        async with tracing.exported("ddq-server", wanted=True):
            pass


def test_clients_do_not_load_opentelemetry() -> None:
    # A server loads redis, which loads it where it is installed.
    script = "import sys, ddq.cli, ddq.worker; sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
