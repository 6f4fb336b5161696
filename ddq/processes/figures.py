"""The metrics of several processes, as those of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from ddq.metrics import SEVERAL

Sample = tuple[str, Mapping[str, str], float]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric and its samples.

    Attributes:
        kind: counter, gauge or histogram.
        samples: name, labels and value of each.
    """

    name: str
    kind: str
    doc: str
    samples: Sequence[Sample] = field(default_factory=list)


Snapshot = Sequence[Family]
"""The metrics of one process at one moment."""


def snapshot(registry: CollectorRegistry) -> Snapshot:
    """What a registry shows now."""
    return [
        Family(
            metric.name,
            metric.type,
            metric.documentation,
            [(each.name, each.labels, each.value) for each in metric.samples],
        )
        for metric in registry.collect()
    ]


def merged(snapshots: Iterable[Snapshot]) -> Snapshot:
    """The metrics of all processes together.

    Counters and histograms are added, gauges as ddq.metrics.SEVERAL says.
    """
    heads: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for each in snapshots:
        for family in each:
            heads.setdefault(family.name, family)
            into = values.setdefault(family.name, {})
            for name, labels, value in family.samples:
                key = (name, tuple(sorted(labels.items())))
                into[key] = _joined(_rule(family, name), into[key], value) if key in into else value
    return [
        Family(
            name,
            head.kind,
            head.doc,
            [(sample, dict(labels), value) for (sample, labels), value in values[name].items()],
        )
        for name, head in heads.items()
    ]


def lasting(given: Snapshot) -> Snapshot:
    """What remains of a process that has ended: what it counted, without its gauges."""
    return [family for family in given if family.kind != "gauge"]


def metrics_of(given: Snapshot) -> list[Metric]:
    """The same for Prometheus."""
    found = []
    for family in given:
        metric = Metric(family.name, family.doc, family.kind)
        for name, labels, value in family.samples:
            metric.add_sample(name, dict(labels), value)
        found.append(metric)
    return found


def _rule(family: Family, sample: str) -> str:
    if family.kind != "gauge":
        # When it began to count.
        return "min" if sample.endswith("_created") else "sum"
    return SEVERAL.get(family.name, "sum")


def _joined(rule: str, one: float, other: float) -> float:
    if rule == "sum":
        return one + other
    return max(one, other) if rule == "max" else min(one, other)
