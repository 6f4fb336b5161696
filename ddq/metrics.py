"""Every metric that a process gives to Prometheus: one table.

Adding a metric is one line in ``Metrics``; the code that counts is given the object. The table in
docs/OPERATIONS.md is generated from here, and tools/alerts.py has what to alert on. No label has
values without a bound: ids and workers are in none, and of topics at most
``metrics_topics_max_count`` have a label of their own.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, get_type_hints

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
)

from ddq import __version__
from ddq.errors import DdqError, all_errors

P = ParamSpec("P")
R = TypeVar("R")

RPC_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SEND_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
LATENESS_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 120)
BARRIER_BUCKETS_S = SEND_BUCKETS_S
OTHER_TOPICS = "other"
"""The label of the topics that have none of their own."""
COUNT_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class Spec:
    """What one figure is.

    Attributes:
        process: "all", "server" (`ddq serve`) or "scheduler"; `ddq dev` has all of them; "parent"
            is that of --processes.
        several: what a parent shows of the values of its processes: "sum", "max" or "min".
    """

    name: str
    doc: str
    process: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    several: str = "sum"


def metric(
    name: str,
    doc: str,
    process: str,
    labels: tuple[str, ...] = (),
    buckets: tuple[float, ...] = (),
    several: str = "sum",
) -> Any:
    """A field of Metrics; the kind of figure is its type."""
    return field(init=False, metadata={"spec": Spec(name, doc, process, labels, buckets, several)})


@dataclass(frozen=True, slots=True)
class Metrics:
    """The figures of one process, in a registry of their own."""

    registry: CollectorRegistry = field(
        default_factory=lambda: CollectorRegistry(auto_describe=False)
    )

    build: Gauge = metric(
        "ddq_build_info", "1, with the version of ddq", "all", ("version",), several="max"
    )

    serving: Gauge = metric(
        "ddq_serving", "1 while the store answers, as grpc.health.v1 says it", "server",
        several="min",
    )  # fmt: skip
    rpcs: Counter = metric(
        "ddq_rpcs_total", "RPCs that ended; what became of a batch's items is not in here",
        "server", ("method", "code", "reason"),
    )  # fmt: skip
    rpc_seconds: Histogram = metric(
        "ddq_rpc_seconds", "how long RPCs took; Retrieve waits on purpose", "server", ("method",),
        RPC_BUCKETS_S,
    )  # fmt: skip
    rpcs_running: Gauge = metric("ddq_rpcs_running", "RPCs under way", "server", ("method",))
    items_refused: Counter = metric(
        "ddq_items_refused_total",
        "items of requests that the store refused, of single ones and of batches, by the reason; "
        "LEASE_LOST is a lease token that no longer held", "server", ("reason",),
    )  # fmt: skip
    delivery_lateness: Histogram = metric(
        "ddq_delivery_lateness_seconds",
        "of each batch of deliveries: how long its first task had been due, by the store's clock; "
        "the time for which no worker asked counts", "server", (), LATENESS_BUCKETS_S,
    )  # fmt: skip

    calls_refused: Counter = metric(
        "ddq_calls_refused_total",
        "calls that were OVERLOADED before they began, by the bound that was reached: waiting, "
        "running, connection or bytes", "server", ("bound",),
    )  # fmt: skip
    calls_stalled: Counter = metric(
        "ddq_calls_stalled_total",
        "calls that were ended since their client did not send the request, or take the reply",
        "server",
    )  # fmt: skip

    store_running: Gauge = metric(
        "ddq_store_requests_running",
        "scripts that wait for the store: to be sent, for its answer, or for the barrier", "all",
    )  # fmt: skip
    store_errors: Counter = metric(
        "ddq_store_errors_total",
        "scripts that ended in an error, by its reason; one request may be tried several times",
        "all", ("reason",),
    )  # fmt: skip
    send_commands: Histogram = metric(
        "ddq_store_send_commands", "commands in one send to the store", "all", (), COUNT_BUCKETS
    )
    send_seconds: Histogram = metric(
        "ddq_store_send_seconds", "from a send to its last answer, the barrier included", "all", (),
        SEND_BUCKETS_S,
    )  # fmt: skip
    sends_failed: Counter = metric(
        "ddq_store_sends_failed_total",
        "sends without an answer, by whether it was certainly not sent (unsent) or may have run "
        "(lost); a new connection follows each", "all", ("how",),
    )  # fmt: skip
    waits: Counter = metric(
        "ddq_barrier_waits_total", "sends that waited for replicas (WAIT or WAITAOF)", "all"
    )

    barrier_seconds: Histogram = metric(
        "ddq_barrier_seconds",
        "sends that waited for replicas, from the send to the last answer", "all", (),
        BARRIER_BUCKETS_S,
    )  # fmt: skip
    held_seconds: Histogram = metric(
        "ddq_barrier_held_seconds",
        "replies that the barrier of their own send did not confirm, from their arrival to the "
        "barrier that did", "all", (), BARRIER_BUCKETS_S,
    )  # fmt: skip

    held: Gauge = metric(
        "ddq_store_replies_held", "replies that wait for a barrier which is good", "all"
    )
    chain_breaks: Counter = metric(
        "ddq_barrier_breaks_total",
        "chains of barriers that broke; until they settle, only all replicas count", "all",
    )  # fmt: skip
    masters_lost: Counter = metric(
        "ddq_masters_lost_total", "masters that were given up for another one", "all"
    )

    shards: Gauge = metric(
        "ddq_scheduler_shards", "shards that it looks after", "scheduler", several="max"
    )
    shards_led: Gauge = metric(
        "ddq_scheduler_shards_led",
        "shards that it leads now; one without work has no leader", "scheduler",
    )  # fmt: skip
    acquired: Counter = metric(
        "ddq_scheduler_acquired_total", "leaderships that it took", "scheduler"
    )
    deposed: Counter = metric(
        "ddq_scheduler_deposed_total",
        "batches that were refused because another leads by now; nothing moved", "scheduler",
    )  # fmt: skip
    promoted: Counter = metric(
        "ddq_scheduler_promoted_total", "tasks that it made ready", "scheduler"
    )
    reaped: Counter = metric(
        "ddq_scheduler_reaped_total", "attempts that it ended since their lease had expired",
        "scheduler",
    )  # fmt: skip
    collected: Counter = metric(
        "ddq_scheduler_collected_total", "tombstones and request records that it removed",
        "scheduler",
    )  # fmt: skip
    swept: Counter = metric(
        "ddq_scheduler_sweeps_total", "shards that it looked at, by the safety sweep or after a "
        "new connection", "scheduler",
    )  # fmt: skip
    lateness: Histogram = metric(
        "ddq_scheduler_lateness_seconds",
        "of each batch of promotions: how long its first task had been due, by the store's clock; "
        "a pause of its topic counts", "scheduler", (), LATENESS_BUCKETS_S,
    )  # fmt: skip
    tasks: Gauge = metric(
        "ddq_tasks", "tasks of all topics when their shards were last swept", "scheduler",
        ("state",), several="max",
    )  # fmt: skip
    oldest_ready: Gauge = metric(
        "ddq_oldest_ready_age_seconds",
        "how long the oldest ready task had been due when its shard was last swept", "scheduler",
        several="max",
    )  # fmt: skip
    counted: Gauge = metric(
        "ddq_tasks_counted",
        "tasks enqueued, succeeded, cancelled, purged and quarantined (set_aside) since their "
        "topics were made, when the shards were last swept", "scheduler", ("state",),
        several="max",
    )  # fmt: skip
    conservation: Gauge = metric(
        "ddq_conservation_difference_tasks",
        "promise G11: tasks by which enqueued differs from the sum of all states, of all shards "
        "when they were last swept; always 0", "scheduler", several="max",
    )  # fmt: skip
    topic_tasks: Gauge = metric(
        "ddq_topic_tasks",
        "tasks of a topic when its shards were last swept; topics beyond metrics_topics_max_count "
        "are summed as other", "scheduler", ("topic", "state"), several="max",
    )  # fmt: skip
    topic_oldest_ready: Gauge = metric(
        "ddq_topic_oldest_ready_age_seconds",
        "how long the oldest ready task of a topic had been due when its shards were last swept; "
        "of the topics that are summed as other the oldest", "scheduler", ("topic",),
        several="max",
    )  # fmt: skip
    malformed: Gauge = metric(
        "ddq_malformed_entries", "entries that ddq did not write, since the topics were made",
        "scheduler", ("kind",), several="max",
    )  # fmt: skip

    def __post_init__(self) -> None:
        _make(self)
        self.build.labels(__version__).set(1)
        # What appears only when it happens first seems never to have grown: no alert would see it.
        for error in all_errors():
            self.store_errors.labels(error.reason)
            self.items_refused.labels(error.reason)
        for how in ("unsent", "lost"):
            self.sends_failed.labels(how)
        for bound in ("waiting", "running", "connection", "bytes"):
            self.calls_refused.labels(bound)

    def with_process(self) -> Metrics:
        """Adds the figures of the process itself: processor time, memory, open files."""
        ProcessCollector(registry=self.registry)
        return self

    @contextmanager
    def store_request(self) -> Iterator[None]:
        """Counts a script while it runs, and its error."""
        self.store_running.inc()
        try:
            yield
        except DdqError as error:
            self.store_errors.labels(error.reason).inc()
            raise
        finally:
            self.store_running.dec()

    @contextmanager
    def rpc(self, method: str) -> Iterator[None]:
        """Counts an RPC while it runs, and times it."""
        running = self.rpcs_running.labels(method)
        running.inc()
        began_s = time.perf_counter()
        try:
            yield
        finally:
            running.dec()
            self.rpc_seconds.labels(method).observe(time.perf_counter() - began_s)


@dataclass(frozen=True, slots=True)
class ParentMetrics:
    """The figures of the parent of several processes, beside theirs."""

    registry: CollectorRegistry = field(
        default_factory=lambda: CollectorRegistry(auto_describe=False)
    )

    processes: Gauge = metric(
        "ddq_processes", "processes that work now, with --processes", "parent"
    )
    ended: Counter = metric(
        "ddq_process_ends_total", "processes that ended by themselves and were replaced", "parent"
    )

    def __post_init__(self) -> None:
        _make(self)
        ProcessCollector(registry=self.registry)


def _make(metrics: Metrics | ParentMetrics) -> None:
    """Makes the figures of an object, in its registry."""
    kind = type(metrics)
    hints = get_type_hints(kind)
    for name, spec in specs(kind).items():
        options: dict[str, Any] = {"buckets": spec.buckets} if spec.buckets else {}
        made = hints[name](spec.name, spec.doc, spec.labels, registry=metrics.registry, **options)
        object.__setattr__(metrics, name, made)


def specs(kind: type[Metrics | ParentMetrics] = Metrics) -> dict[str, Spec]:
    """What each figure of an object is, by the name of its field."""
    return {spec.name: spec.metadata["spec"] for spec in fields(kind) if "spec" in spec.metadata}


SEVERAL = {
    **{
        spec.name: spec.several
        for kind in (Metrics, ParentMetrics)
        for spec in specs(kind).values()
    },
    "process_start_time_seconds": "min",
}
"""What a parent shows of the values of a gauge: "sum", "max" or "min"; "sum" if it is not here."""


@functools.cache
def null_metrics() -> Metrics:
    """Metrics that are never read, shared by all callers, since creating them is expensive."""
    return Metrics()


class Metered(Protocol):
    """Whose methods may be counted."""

    @property
    def metrics(self) -> Metrics:
        """Where to."""


S = TypeVar("S", bound=Metered)


def counted_store_request(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Counts the calls of a method that runs a script."""

    @functools.wraps(method)
    async def counted(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.metrics.store_request():
            return await method(self, *args, **kwargs)

    return counted
