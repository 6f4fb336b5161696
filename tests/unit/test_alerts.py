"""The alerts and the dashboard use metrics that exist; promtool itself runs in tests/e2e."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import pytest
import yaml

from ddq.errors import all_errors
from ddq.metrics import Metrics, ParentMetrics, Spec, specs
from tools.alerts import ALERTS, EVAL_MINUTES, Alert
from tools.dashboard import queries
from tools.repo import ROOT

DEPLOY = ROOT / "deploy"
SUFFIXES = ("_bucket", "_sum", "_count")
EVERY = [*specs().values(), *specs(ParentMetrics).values()]
OF_PROCESS = {
    "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "up",
}  # fmt: skip


def exported(spec: Spec) -> set[str]:
    """The names by which Prometheus knows a metric."""
    return {spec.name + suffix for suffix in (SUFFIXES if spec.buckets else ("",))}


KNOWN = {name: spec for spec in EVERY for name in exported(spec)}


def check(query: str) -> None:
    """A query names metrics that exist, with labels that they have."""
    used = re.findall(r"\b((?:ddq|process)_[a-z_]+)(?:\{([^}]*)\})?", query)
    assert used or "up{" in query, query
    for name, matchers in used:
        assert name in KNOWN or name in OF_PROCESS, name
        for label in re.findall(r"(\w+)\s*=~?\s*\"", matchers):
            known = KNOWN[name].labels if name in KNOWN else ()
            assert label in {*known, "instance", "le"}, f"{name} has no label {label}"


def labels_in(queries: Iterable[str]) -> set[str]:
    """The reasons that queries name."""
    found = set()
    for query in queries:
        for text in re.findall(r'reason=~?"([^"]*)"', query):
            found.update(text.split("|"))
    return found


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_uses_metrics_that_exist(alert: Alert) -> None:
    check(alert.when)
    for series in (*alert.fires, *alert.quiet):
        if not series.startswith("up{"):
            check(series)
    assert alert.hold_minutes < EVAL_MINUTES
    assert re.fullmatch(r"Ddq[A-Za-z]+", alert.name)
    assert alert.severity in {"critical", "warning"}


@pytest.mark.parametrize("query", queries())
def test_a_query_of_the_dashboard_uses_metrics_that_exist(query: str) -> None:
    check(query)


def test_the_reasons_that_are_named_are_counted_before_they_happen() -> None:
    named = labels_in([*(alert.when for alert in ALERTS), *queries()])
    assert named <= {error.reason for error in all_errors()}
    registry = Metrics().registry
    for metric in ("ddq_store_errors_total", "ddq_items_refused_total"):
        for reason in named:
            assert registry.get_sample_value(metric, {"reason": reason}) == 0, (
                f"{metric}: {reason} does not exist before it happens"
            )


def test_every_metric_is_on_the_dashboard_or_in_an_alert() -> None:
    text = " ".join([*(alert.when for alert in ALERTS), *queries()])
    left = {spec.name for spec in EVERY if spec.name not in text}
    assert left == {
        "ddq_build_info", "ddq_store_send_commands", "ddq_barrier_waits_total",
        "ddq_scheduler_sweeps_total", "ddq_processes",
    }  # fmt: skip


def _names(document: Any) -> list[str]:
    return [each["alert"] for each in document["groups"][0]["rules"]]


def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    folder = DEPLOY / "prometheus"
    names = _names(yaml.safe_load((folder / "ddq.rules.yaml").read_text()))
    assert names == [alert.name for alert in ALERTS]
    tests = yaml.safe_load((folder / "ddq.rules.test.yaml").read_text())["tests"]
    found = [
        (each["alert_rule_test"][0]["alertname"], bool(each["alert_rule_test"][0]["exp_alerts"]))
        for each in tests
    ]
    assert found == [(name, fires) for name in names for fires in (True, False)]


def test_the_dashboard_has_no_two_panels_of_one_id_and_asks_the_chosen_source() -> None:
    made = json.loads((DEPLOY / "grafana" / "ddq.json").read_text())
    panels = [each for each in made["panels"] if each["type"] != "row"]
    assert len({panel["id"] for panel in made["panels"]}) == len(made["panels"])
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    shown = [target["expr"] for panel in panels for target in panel["targets"]]
    assert shown == queries()
