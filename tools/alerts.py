"""What to alert on: a table, and the rules and their tests for Prometheus that are made from it.

`make gen` writes docs/OPERATIONS.md and deploy/prometheus/ddq.rules.yaml from here, and from the
examples of each alert deploy/prometheus/ddq.rules.test.yaml for `promtool test rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

STEP_S = 15
"""Between two samples of an example."""
EVAL_MINUTES = 15
"""When an example is looked at: every rate is known by then, and every alert has been held."""
SAMPLES_COUNT = EVAL_MINUTES * 60 // STEP_S
HEAD = "# Generated from tools/alerts.py by `make gen`. Do not edit.\n"


@dataclass(frozen=True, slots=True)
class Alert:
    """A condition that needs a person.

    Attributes:
        severity: "critical": now; "warning": today.
        hold_minutes: how long it has to be true.
        when: PromQL.
        means: what has happened.
        do: what to do.
        fires: series, in the notation of promtool, of which it is true.
        quiet: series of which it is not, as close to it as they come.
        labels: of the alert that fires, beside its severity.
    """

    name: str
    severity: str
    hold_minutes: int
    when: str
    means: str
    do: str
    fires: Mapping[str, str]
    quiet: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)


def constant(value: float) -> str:
    """A gauge that stays as it is."""
    return f"{value}x{SAMPLES_COUNT}"


def growing(by: float) -> str:
    """A counter that grows by so much from each sample to the next."""
    return f"0+{by}x{SAMPLES_COUNT}"


def once(by: float = 1) -> str:
    """A counter that grows once, two minutes before the example is looked at."""
    late = 120 // STEP_S
    return f"0x{SAMPLES_COUNT - late} {by}x{late}"


def _histogram(name: str, below: str, above: str) -> dict[str, str]:
    """A histogram of which 99 % of the values lie in the bucket below, 1 % in that above."""
    return {
        f'{name}_bucket{{le="{below}"}}': growing(99),
        f'{name}_bucket{{le="{above}"}}': growing(100),
        f'{name}_bucket{{le="+Inf"}}': growing(100),
    }


def _errors(*reasons: str) -> str:
    return f'sum(increase(ddq_store_errors_total{{reason=~"{"|".join(reasons)}"}}[5m])) > 0'


def _error(reason: str) -> dict[str, str]:
    return {f'ddq_store_errors_total{{reason="{reason}"}}': once()}


OTHER_ERROR = {'ddq_store_errors_total{reason="UNAVAILABLE"}': once()}

ALERTS = (
    Alert(
        "DdqNoScheduler", "critical", 1,
        "absent(ddq_scheduler_shards)",
        "nothing becomes due", "start `ddq scheduler`",
        fires={"ddq_serving": constant(1)},
        quiet={"ddq_scheduler_shards": constant(0)},
    ),
    Alert(
        "DdqConservationBroken", "critical", 0,
        "max(ddq_conservation_difference_tasks) > 0",
        "the counters of a shard contradict promise G11: tasks were lost or counted twice, by a "
        "bug or by another program that writes to the store",
        "find the topic with `ddq stats`, keep the store's files, and report it",
        fires={"ddq_conservation_difference_tasks": constant(1)},
        quiet={"ddq_conservation_difference_tasks": constant(0)},
    ),
    Alert(
        "DdqRollback", "critical", 0, _errors("ROLLBACK_DETECTED"),
        "the store lost writes that it had acknowledged at QUORUM or ALL",
        "find out how before you reset; until then writes are refused",
        fires=_error("ROLLBACK_DETECTED"), quiet=OTHER_ERROR,
    ),
    Alert(
        "DdqClockUnsafe", "critical", 0, _errors("CLOCK_UNSAFE"),
        "a clock of the store or of a process is off, or the store's ran backwards",
        "set the clocks right; see Clocks",
        fires=_error("CLOCK_UNSAFE"), quiet=OTHER_ERROR,
    ),
    Alert(
        "DdqStoreAway", "critical", 1,
        "ddq_serving == 0",
        "a server does not reach its store, and answers UNAVAILABLE",
        "`/readyz` of that server says why; look at the store and the network to it",
        fires={'ddq_serving{instance="a"}': constant(0), 'ddq_serving{instance="b"}': constant(1)},
        quiet={'ddq_serving{instance="a"}': constant(1)},
        labels={"instance": "a"},
    ),
    Alert(
        "DdqDown", "critical", 1,
        'up{job=~"ddq.*"} == 0',
        "a process of ddq does not answer Prometheus",
        "look whether it runs, and at the end of its log",
        fires={'up{job="ddq", instance="a"}': constant(0)},
        quiet={'up{job="ddq", instance="a"}': constant(1), 'up{job="node"}': constant(0)},
        labels={"job": "ddq", "instance": "a"},
    ),
    Alert(
        "DdqTooFewReplicas", "critical", 0, _errors("NOT_ENOUGH_REPLICAS"),
        "the store's `min-replicas-to-write` is not met: it takes no writes",
        "bring the replicas back",
        fires=_error("NOT_ENOUGH_REPLICAS"), quiet=OTHER_ERROR,
    ),
    Alert(
        "DdqStoreFull", "critical", 0, _errors("STORE_FULL"),
        "the store is at its `maxmemory` and takes no new tasks",
        "let tasks end, purge, or raise `maxmemory`",
        fires=_error("STORE_FULL"), quiet=OTHER_ERROR,
    ),
    Alert(
        "DdqTasksReadyLate", "warning", 5,
        "histogram_quantile(0.999, sum by (le) (rate(ddq_scheduler_lateness_seconds_bucket[5m])))"
        " > 0.25",
        "promise G6 is not kept: schedulers cannot keep up, or the store is slow; after a failover "
        "or a pause for a moment",
        "look at `ddq_store_send_seconds` and the schedulers' processor time; give busy topics "
        "more shards",
        fires=_histogram("ddq_scheduler_lateness_seconds", "0.25", "0.5"),
        quiet=_histogram("ddq_scheduler_lateness_seconds", "0.1", "0.25"),
    ),
    Alert(
        "DdqTooFewWorkers", "warning", 5,
        "max by (topic) (ddq_topic_oldest_ready_age_seconds) > 60",
        "tasks of this topic are ready, and no worker takes them",
        "add workers; `ddq stats` says to which topic, where it is `other`",
        fires={
            'ddq_topic_oldest_ready_age_seconds{topic="mail", instance="a"}': constant(61),
            'ddq_topic_oldest_ready_age_seconds{topic="fast", instance="a"}': constant(1),
        },
        quiet={'ddq_topic_oldest_ready_age_seconds{topic="mail"}': constant(60)},
        labels={"topic": "mail"},
    ),
    Alert(
        "DdqOutcomesUnknown", "warning", 2,
        'sum(rate(ddq_store_errors_total{reason="WRITE_OUTCOME_UNKNOWN"}[5m])) > 1',
        "answers of the store are lost, or replicas do not confirm in time",
        "look at the store, its replicas and the network",
        fires={'ddq_store_errors_total{reason="WRITE_OUTCOME_UNKNOWN"}': growing(2 * STEP_S)},
        quiet={'ddq_store_errors_total{reason="WRITE_OUTCOME_UNKNOWN"}': growing(STEP_S)},
    ),
    Alert(
        "DdqBarriersBreak", "warning", 0,
        "sum(increase(ddq_barrier_breaks_total[10m])) > 5",
        "the master, a replica or a server falls silent again and again; each time QUORUM waits "
        "for all replicas until it has settled",
        "look for pauses of the hosts, slow disks, and lost packets between data nodes",
        fires={"ddq_barrier_breaks_total": growing(1)},
        quiet={"ddq_barrier_breaks_total": once(4)},
    ),
    Alert(
        "DdqBarriersSlow", "warning", 5,
        "histogram_quantile(0.99, sum by (le) (rate(ddq_barrier_seconds_bucket[5m]))) > 1",
        "replicas confirm slowly, and every QUORUM and ALL reply waits for them",
        "look at the replicas' disks, processor time and network; `ddq_barrier_held_seconds` shows "
        "replies that waited for a later barrier",
        fires=_histogram("ddq_barrier_seconds", "1", "2.5") | {
            'ddq_barrier_seconds_bucket{le="1"}': growing(98)
        },
        quiet=_histogram("ddq_barrier_seconds", "0.5", "1"),
    ),
    Alert(
        "DdqOverload", "warning", 0,
        'sum(increase(ddq_store_errors_total{reason="OVERLOADED"}[5m])) > 0'
        " or sum(increase(ddq_calls_refused_total[5m])) > 0",
        "more calls arrive than the servers or the store can handle; `ddq_calls_refused_total` "
        "says which bound of the server was reached, `store_queue_max_count` and "
        "`store_queue_max_bytes` are those of the store",
        "fewer or larger batches; for the servers more processes, for the store a faster disk, or "
        "more shards on more nodes",
        fires={'ddq_calls_refused_total{bound="waiting"}': once()},
        quiet=OTHER_ERROR | {'ddq_calls_refused_total{bound="waiting"}': constant(7)},
    ),
    Alert(
        "DdqLeasesLost", "warning", 10,
        'sum(rate(ddq_items_refused_total{reason="LEASE_LOST"}[5m])) > 1',
        "workers end attempts whose lease has gone to another one: handlers stall for longer than "
        "their lease, or are cut off; promise G8 keeps their results out",
        "look at the workers' processor time and network; give the topic a longer lease",
        fires={'ddq_items_refused_total{reason="LEASE_LOST"}': growing(2 * STEP_S)},
        quiet={
            'ddq_items_refused_total{reason="LEASE_LOST"}': growing(STEP_S),
            'ddq_items_refused_total{reason="TASK_NOT_FOUND"}': growing(9 * STEP_S),
        },
    ),
    Alert(
        "DdqSchedulersDeposeEachOther", "warning", 5,
        "sum(rate(ddq_scheduler_deposed_total[10m])) > 0.1",
        "schedulers stall for longer than `leader_lease_ms`, or come and go",
        "give them processor time; raise `leader_lease_ms`",
        fires={"ddq_scheduler_deposed_total": growing(0.2 * STEP_S)},
        quiet={"ddq_scheduler_deposed_total": growing(0.05 * STEP_S)},
    ),
    Alert(
        "DdqMalformedEntries", "warning", 0,
        "max(delta(ddq_malformed_entries[1h])) > 0 or " + _errors("STORE_MALFORMED"),
        "another program wrote into ddq's keys, or a file was damaged", "see Malformed entries",
        fires={'ddq_malformed_entries{kind="set_aside"}': once()},
        quiet=OTHER_ERROR | {'ddq_malformed_entries{kind="set_aside"}': constant(5)},
    ),
    Alert(
        "DdqProcessesEnd", "warning", 0,
        "sum(increase(ddq_process_ends_total[10m])) > 2",
        "processes of --processes ended by themselves, and were replaced",
        "the log says how each ended: out of memory, or a bug to report",
        fires={"ddq_process_ends_total": once(4)},
        quiet={"ddq_process_ends_total": once(1)},
    ),
    Alert(
        "DdqBugs", "warning", 0,
        'sum by (method) (increase(ddq_rpcs_total{code="INTERNAL"}[5m])) > 0',
        "an RPC failed in a way that ddq does not know", "the server's log says where: report it",
        fires={'ddq_rpcs_total{method="Ack", code="INTERNAL", reason=""}': once()},
        quiet={'ddq_rpcs_total{method="Ack", code="UNAVAILABLE", reason=""}': once()},
        labels={"method": "Ack"},
    ),
)  # fmt: skip
"""Worst first."""


def rules() -> str:
    """deploy/prometheus/ddq.rules.yaml."""
    return _yaml({"groups": [{"name": "ddq", "rules": [_rule(alert) for alert in ALERTS]}]})


def rule_tests() -> str:
    """deploy/prometheus/ddq.rules.test.yaml: of each alert one example, and one where it is off."""
    tests = [
        _test(alert, series, expected)
        for alert in ALERTS
        for series, expected in ((alert.fires, [_expected(alert)]), (alert.quiet, []))
    ]
    return _yaml(
        {
            "rule_files": ["ddq.rules.yaml"],
            "evaluation_interval": f"{STEP_S}s",
            "tests": tests,
        }
    )


def _rule(alert: Alert) -> dict[str, Any]:
    made: dict[str, Any] = {"alert": alert.name, "expr": alert.when}
    if alert.hold_minutes:
        made["for"] = f"{alert.hold_minutes}m"
    return made | {"labels": {"severity": alert.severity}, "annotations": _annotations(alert)}


def _annotations(alert: Alert) -> dict[str, str]:
    return {
        "summary": _sentence(alert.means),
        "action": _sentence(alert.do),
        "runbook": "docs/OPERATIONS.md#what-to-alert-on",
    }


def _test(alert: Alert, series: Mapping[str, str], expected: list[Any]) -> dict[str, Any]:
    return {
        "name": f"{alert.name} {'fires' if expected else 'does not fire'}",
        "interval": f"{STEP_S}s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": f"{EVAL_MINUTES}m", "alertname": alert.name, "exp_alerts": expected}
        ],
    }


def _expected(alert: Alert) -> dict[str, Any]:
    return {
        "exp_labels": {**alert.labels, "severity": alert.severity},
        "exp_annotations": _annotations(alert),
    }


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _yaml(document: Any) -> str:
    return HEAD + yaml.safe_dump(document, sort_keys=False, width=100, allow_unicode=True)
