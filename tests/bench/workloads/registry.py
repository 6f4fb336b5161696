"""Every workload, by name, in the order of a run."""

from __future__ import annotations

from tests.bench.workloads import Workload
from tests.bench.workloads.drain import DRAIN
from tests.bench.workloads.enqueue import BULK, MEMORY, SINGLE_50, SINGLE_1000
from tests.bench.workloads.overload import overload
from tests.bench.workloads.pending import beside
from tests.bench.workloads.steady import steady
from tests.bench.workloads.unary_overload import OVERLOAD_UNARY

UNARY = ("ddq-unary-go", "ddq-unary-go-2-processes")
THREE_NODES = ("ddq-3-nodes-fast", "ddq-3-nodes-quorum", "ddq-3-nodes-all")

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        SINGLE_50,
        SINGLE_1000,
        BULK,
        MEMORY,
        DRAIN,
        steady(500),
        steady(2_000, alone=True),
        steady(5_000, alone=True),
        overload(bounded=False),
        overload(bounded=True),
        OVERLOAD_UNARY,
        beside(10_000),
        beside(100_000),
        beside(1_000_000),
    )
}

ALONE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("single-50", ("ddq", *UNARY, *THREE_NODES)),
    ("bulk-100", ("ddq", "ddq-2-shards", "ddq-4-shards", *THREE_NODES)),
    ("drain", ("ddq", "ddq-2-shards", "ddq-4-shards", *THREE_NODES)),
    *((f"steady-{rate}", ("ddq",)) for rate in (500, 2_000, 5_000)),
    *((name, ("ddq",)) for name in ("overload-3", "overload-3-bounded", "overload-3-unary")),
    *((f"pending-{pending}", ("ddq",)) for pending in (10_000, 100_000, 1_000_000)),
)
"""What is measured of ddq alone: each workload with the variants that it is about."""
