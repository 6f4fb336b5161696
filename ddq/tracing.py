"""OpenTelemetry traces from the producer through server and store to the worker.

Off until ``enable`` is called; then ``current`` is set, which is all that a call looks at while it
is off. Spans follow the semantic conventions for messaging:

    create TOPIC     PRODUCER  one task; its context travels in the task's header ``traceparent``
    send TOPIC       CLIENT    a request with one task or a batch; linked to their creation
    ddq.v1.…/RPC     SERVER    the request in the server
    script NAME      CLIENT    what the server has the store do, the wait for replicas included
    receive TOPIC    CLIENT    tasks that a consumer got; linked to their creation
    process TOPIC    CONSUMER  a handler, in the trace of the task's creation
    settle TOPIC     CLIENT    an ack, nack, release or snooze, of one attempt or of a batch

The packages of ``ddq[otel]`` are needed only by ``enable``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
from collections.abc import (
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from typing import TYPE_CHECKING, Any, Protocol

from ddq.config import StartupError

if TYPE_CHECKING:
    from grpc import StatusCode

    # Optional: see enable.
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, TracerProvider

TRACE_HEADERS = ("traceparent", "tracestate")
"""W3C Trace Context. They do not belong to the identity of a task: a repeat has other ones."""
LINKS_MAX_COUNT = 128
"""Links of one span; more are left out, as the SDK would do."""
SYSTEM = "ddq"
_OPERATIONS = {
    "Enqueue": "send", "BatchEnqueue": "send",
    "Retrieve": "receive",
    "Ack": "settle", "BatchAck": "settle", "Nack": "settle", "BatchNack": "settle",
    "Release": "settle", "BatchRelease": "settle", "Snooze": "settle", "RunAgain": "settle",
}  # fmt: skip


_SERVER_ERRORS = {
    "unknown", "deadline exceeded", "unimplemented", "internal", "unavailable", "data loss",
}  # fmt: skip
"""Codes that are the server's fault, by the conventions for gRPC."""


class Delivered(Protocol):
    """A task that a handler is given."""

    @property
    def topic(self) -> str:
        """Its topic."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def attempt(self) -> int:
        """Counted from 1."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Those of the task."""


class Tracing:
    """Makes the spans of this process.

    Args:
        provider: of OpenTelemetry's SDK.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace  # noqa: PLC0415 - optional
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - optional
            TraceContextTextMapPropagator,
        )

        self._trace = trace
        self._tracer = provider.get_tracer("ddq")
        self._propagator = TraceContextTextMapPropagator()

    # Producing -------------------------------------------------------------------------------

    def create(self, topic: str, task_id: str, headers: MutableMapping[str, str]) -> None:
        """The span of a task's creation, and its context in the headers; theirs stays if it is
        there."""
        if "traceparent" in headers:
            return
        span = self._tracer.start_span(
            f"create {topic}",
            kind=self._trace.SpanKind.PRODUCER,
            attributes={**_messaging("create", "create", topic), "messaging.message.id": task_id},
        )
        # The headers are a map of protobuf: no dict, but it is set like one.
        self._propagator.inject(headers, self._trace.set_span_in_context(span))
        span.end()

    # Calls -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def call(
        self, request: Any, address: str, metadata: Sequence[tuple[str, str]] | None
    ) -> Iterator[tuple[Span, tuple[tuple[str, str], ...]]]:
        """The span of one attempt of an RPC in the client, and the metadata to send with it."""
        kind = request.DESCRIPTOR
        method = kind.name.removesuffix("Request")
        service = "DelayQueueAdminService" if "admin" in kind.file.name else "DelayQueueService"
        name = f"ddq.v1.{service}/{method}"
        attributes: dict[str, Any] = {
            "rpc.system": "grpc", "rpc.service": f"ddq.v1.{service}", "rpc.method": method,
            "server.address": address,
        }  # fmt: skip
        links: list[Link] = []
        context = None
        if (operation := _OPERATIONS.get(method)) is not None:
            topic = request.topic if method != "Retrieve" else ",".join(request.topics)
            name = f"{operation} {topic}"
            attributes |= _messaging(operation, _snake(method), topic)
            if method.startswith("Batch"):
                attributes["messaging.batch.message_count"] = len(request.items)
            if operation == "send":
                specs = (
                    [each.task for each in request.items] if "Batch" in method else [request.task]
                )
                links = self._links(spec.headers for spec in specs)
                if links and not self._trace.get_current_span().get_span_context().is_valid:
                    # Without a span of the caller's own the request belongs to its first task.
                    context = self._context(specs[0].headers)
        with self._tracer.start_as_current_span(
            name,
            context=context,
            kind=self._trace.SpanKind.CLIENT,
            attributes=attributes,
            links=links,
        ) as span:
            sent: dict[str, str] = {}
            self._propagator.inject(sent)
            yield span, (*(metadata or ()), *sent.items())

    def serve(self, name: str, metadata: Iterable[tuple[str, Any]] | None) -> Any:
        """The span of an RPC in the server, as a context manager."""
        carrier = {key: value for key, value in metadata or () if key in TRACE_HEADERS}
        service, _, method = name.rpartition("/")
        return self._tracer.start_as_current_span(
            name,
            context=self._propagator.extract(carrier),
            kind=self._trace.SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
            # A client may cause it, without a fault of the server: see ended.
            record_exception=False,
            set_status_on_exception=False,
        )

    def ended(self, code: StatusCode, reason: str) -> None:
        """How the RPC whose span runs now has ended."""
        span = self._trace.get_current_span()
        number, name = code.value
        span.set_attribute("rpc.grpc.status_code", number)
        if reason:
            span.set_attribute("error.type", reason)
        if name in _SERVER_ERRORS:
            span.set_status(self._trace.StatusCode.ERROR, reason)

    def script(self, name: str, topic: str, durability: str) -> Any:
        """The span of a script in the store, as a context manager; none outside of a call."""
        if not self._trace.get_current_span().get_span_context().is_valid:
            return contextlib.nullcontext()
        return self._tracer.start_as_current_span(
            f"script {name}",
            kind=self._trace.SpanKind.CLIENT,
            attributes={
                "db.system.name": "redis",
                "db.operation.name": "EVALSHA",
                "db.stored_procedure.name": name,
                "messaging.destination.name": topic,
                "ddq.durability": durability,
            },
            record_exception=False,
        )

    # Consuming -------------------------------------------------------------------------------

    def received(self, span: Span, delivered: Iterable[Any]) -> None:
        """Links a span to the creation of the tasks that came with it."""
        tasks = [each.task for each in delivered]
        span.set_attribute("messaging.batch.message_count", len(tasks))
        for link in self._links(task.headers for task in tasks):
            span.add_link(link.context)

    def receive(self, delivered: Sequence[Any]) -> None:
        """The span of tasks that came on a stream."""
        topics = sorted({each.task.topic for each in delivered})
        topic = ",".join(topics)
        with self._tracer.start_as_current_span(
            f"receive {topic}",
            kind=self._trace.SpanKind.CLIENT,
            attributes=_messaging("receive", "stream_retrieve", topic),
        ) as span:
            self.received(span, delivered)

    def handler(
        self, handler: Callable[..., Any], harmless: tuple[type[Exception], ...]
    ) -> Callable[..., Any]:
        """A handler that runs in a span, in the trace of its task's creation.

        Args:
            harmless: what it may raise without having failed.
        """
        if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
            getattr(handler, "__call__", None)  # noqa: B004 - an object whose __call__ is async
        ):

            @functools.wraps(handler, updated=())
            async def traced(job: Delivered) -> Any:
                with self._process(job, harmless):
                    return await handler(job)
        else:

            @functools.wraps(handler, updated=())
            def traced(job: Delivered) -> Any:
                with self._process(job, harmless):
                    return handler(job)

        return traced

    @contextlib.contextmanager
    def _process(self, job: Delivered, harmless: tuple[type[Exception], ...]) -> Iterator[None]:
        attributes: dict[str, Any] = {
            **_messaging("process", "process", job.topic),
            "messaging.message.id": job.id,
            "messaging.message.delivery_attempt": job.attempt,
        }
        with self._tracer.start_as_current_span(
            f"process {job.topic}",
            context=self._context(job.headers),
            kind=self._trace.SpanKind.CONSUMER,
            attributes=attributes,
            links=self._links([job.headers]),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except harmless:
                raise
            except Exception as error:
                span.record_exception(error)
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(self._trace.StatusCode.ERROR, str(error))
                raise

    # Contexts --------------------------------------------------------------------------------

    def _context(self, headers: Mapping[str, str]) -> Context | None:
        if "traceparent" not in headers:
            return None
        return self._propagator.extract(
            {key: headers[key] for key in TRACE_HEADERS if key in headers}
        )

    def _links(self, each: Iterable[Mapping[str, str]]) -> list[Link]:
        links = []
        for headers in each:
            context = self._context(headers)
            if context is not None:
                span_context = self._trace.get_current_span(context).get_span_context()
                if span_context.is_valid:
                    links.append(self._trace.Link(span_context))
            if len(links) == LINKS_MAX_COUNT:
                break
        return links

    def ids(self) -> dict[str, str]:
        """The trace and span that run now, for log lines; empty if there are none."""
        context = self._trace.get_current_span().get_span_context()
        if not context.is_valid:
            return {}
        return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


current: Tracing | None = None
"""The spans of this process; None: there are none."""


def enable(provider: TracerProvider | None = None) -> None:
    """Makes spans from now on, in clients, workers, servers and schedulers of this process.

    Args:
        provider: of OpenTelemetry's SDK; None: the global one.

    Raises:
        StartupError: OpenTelemetry is not installed.
    """
    global current
    try:
        from opentelemetry import trace  # noqa: PLC0415 - optional
    except ImportError:
        raise StartupError("OpenTelemetry is not installed: pip install 'ddq[otel]'") from None
    current = Tracing(provider or trace.get_tracer_provider())


def disable() -> None:
    """Makes no more spans."""
    global current
    current = None


EXPORT_TIMEOUT_S = 2.0
"""For one batch of spans, unless OTEL_EXPORTER_OTLP_TIMEOUT says otherwise: the end of a process
waits for the last one."""


@contextlib.asynccontextmanager
async def exported(service: str, *, wanted: bool) -> AsyncIterator[None]:
    """Sends the spans of the block by OTLP over gRPC, if that is wanted, and the last at its end.

    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES and so on count.

    Args:
        service: the name of the process, unless OTEL_SERVICE_NAME says otherwise.

    Raises:
        StartupError: OpenTelemetry is not installed.
    """
    if not wanted:
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        raise StartupError("traces need OpenTelemetry: pip install 'ddq[otel]'") from None
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    resource = Resource.create({} if named else {"service.name": service})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    own = "OTEL_EXPORTER_OTLP_TIMEOUT" in os.environ
    exporter = OTLPSpanExporter(timeout=None if own else EXPORT_TIMEOUT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    enable(provider)
    try:
        yield
    finally:
        disable()
        await asyncio.to_thread(provider.shutdown)


def _messaging(kind: str, operation: str, topic: str) -> dict[str, Any]:
    return {
        "messaging.system": SYSTEM,
        "messaging.operation.type": kind,
        "messaging.operation.name": operation,
        "messaging.destination.name": topic,
    }


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).removeprefix("_")
