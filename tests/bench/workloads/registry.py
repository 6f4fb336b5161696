"""Every workload, by name, in the order of a run."""

from __future__ import annotations

from tests.bench.workloads import Workload
from tests.bench.workloads.drain import DRAIN
from tests.bench.workloads.enqueue import BULK, MEMORY, SINGLE_50, SINGLE_1000
from tests.bench.workloads.steady import steady

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (SINGLE_50, SINGLE_1000, BULK, MEMORY, DRAIN, steady(500))
}
