"""The dashboard for Grafana: a table of panels.

`make gen` writes deploy/grafana/ddq.json from it, by the library of Grafana that knows its form.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass

from grafana_foundation_sdk.builders.common import VizLegendOptions, VizTooltipOptions
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DatasourceVariable,
    QueryVariable,
    Row,
    ThresholdsConfig,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as StatPanel
from grafana_foundation_sdk.builders.timeseries import Panel as TimeseriesPanel
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)

WIDTH = 24
"""Columns of a dashboard."""
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
CHOSEN = 'instance=~"$instance"'


@dataclass(frozen=True, slots=True)
class Chart:
    """A panel with lines, or with one number.

    Attributes:
        queries: PromQL by the name of its line; ``{{label}}`` in a name is the value of a label.
        unit: in Grafana's names.
        bad_from: a single number with a colour: from this value on it is red.
        bad_below: likewise: below this value it is red.
    """

    title: str
    about: str
    queries: Mapping[str, str]
    unit: str = "short"
    columns: int = 8
    bad_from: float | None = None
    bad_below: float | None = None


def rate(name: str, by: str = "", match: str = "") -> str:
    """The growth of a counter per second, of the chosen instances together."""
    labels = ",".join(filter(None, (CHOSEN, match)))
    return f"sum{f' by ({by})' if by else ''} (rate({name}{{{labels}}}[$__rate_interval]))"


def quantile(share: float, name: str, by: str = "") -> str:
    """A quantile of a histogram, over the chosen instances together."""
    labels = f"le, {by}" if by else "le"
    buckets = f"rate({name}_bucket{{{CHOSEN}}}[$__rate_interval])"
    return f"histogram_quantile({share}, sum by ({labels}) ({buckets}))"


def quantiles(name: str) -> dict[str, str]:
    """The median and the tail of a histogram."""
    return {f"p{share * 100:g}": quantile(share, name) for share in (0.5, 0.99, 0.999)}


ROWS: Mapping[str, tuple[Chart, ...]] = {
    "At a glance": (
        Chart(
            "Servers that reach their store", "Of all that are scraped.",
            {"": "sum(ddq_serving) / count(ddq_serving)"}, "percentunit", 4, bad_below=1,
        ),
        Chart(
            "Schedulers", "Processes that schedule; they share the work.",
            {"": "count(ddq_scheduler_shards) or vector(0)"}, "short", 4, bad_below=1,
        ),
        Chart(
            "Conservation difference", "Promise G11: always 0.",
            {"": "max(ddq_conservation_difference_tasks)"}, "short", 4, bad_from=1,
        ),
        Chart(
            "Ready late, p99.9", "Promise G6: at most 250 ms while nothing is broken.",
            {"": quantile(0.999, "ddq_scheduler_lateness_seconds")}, "s", 4, bad_from=0.25,
        ),
        Chart(
            "Oldest ready task", "How long it has been due; it grows when workers are missing.",
            {"": "max(ddq_oldest_ready_age_seconds)"}, "s", 4, bad_from=60,
        ),
        Chart(
            "Unknown outcomes per second", "Replies of the store that were lost or not confirmed.",
            {"": rate("ddq_store_errors_total", match='reason="WRITE_OUTCOME_UNKNOWN"')},
            "reqps", 4, bad_from=1,
        ),
    ),
    "Tasks": (
        Chart(
            "Tasks by state", "When the shards were last swept.",
            {"{{state}}": "max by (state) (ddq_tasks)"},
        ),
        Chart(
            "Tasks enqueued and finished", "Growth of the counters of all topics.",
            {"{{state}}": "max by (state) (deriv(ddq_tasks_counted[5m]))"}, "reqps",
        ),
        Chart(
            "Promotions, expiries and removals", "What the schedulers do.",
            {
                "promoted": rate("ddq_scheduler_promoted_total"),
                "expired": rate("ddq_scheduler_reaped_total"),
                "removed": rate("ddq_scheduler_collected_total"),
            }, "reqps",
        ),
        Chart(
            "Ready by topic", "The topics with the most; those without a label as other.",
            {"{{topic}}": 'topk(10, max by (topic) (ddq_topic_tasks{state="ready"}))'},
        ),
        Chart(
            "Age of the oldest ready task by topic", "The topics that wait longest for a worker.",
            {"{{topic}}": "topk(10, max by (topic) (ddq_topic_oldest_ready_age_seconds))"}, "s",
        ),
        Chart(
            "Dead by topic", "Tasks that used up their attempts.",
            {"{{topic}}": 'topk(10, max by (topic) (ddq_topic_tasks{state="dead"}))'},
        ),
    ),
    "Promises": (
        Chart(
            "G6 · how late tasks become ready", "Of each batch its first task.",
            quantiles("ddq_scheduler_lateness_seconds"), "s",
        ),
        Chart(
            "How late tasks are delivered", "The time for which no worker asked included.",
            quantiles("ddq_delivery_lateness_seconds"), "s",
        ),
        Chart(
            "G8 · refused stale tokens and epochs", "Each of them was kept from a second effect.",
            {
                "lease tokens": rate("ddq_items_refused_total", match='reason="LEASE_LOST"'),
                "epochs of schedulers": rate("ddq_scheduler_deposed_total"),
            }, "reqps",
        ),
        Chart(
            "G12 · leadership", "Shards that are led, and leaderships that changed hands.",
            {
                "led": f"sum(ddq_scheduler_shards_led{{{CHOSEN}}})",
                "taken per second": rate("ddq_scheduler_acquired_total"),
            },
        ),
        Chart(
            "What items were refused for", "Of batches and single requests.",
            {"{{reason}}": f"{rate('ddq_items_refused_total', 'reason')} > 0"}, "reqps",
        ),
        Chart(
            "Malformed entries", "What another program wrote, since the topics were made.",
            {"{{kind}}": "max by (kind) (ddq_malformed_entries)"},
        ),
    ),
    "Requests": (
        Chart(
            "RPCs per second", "By method.",
            {"{{method}}": rate("ddq_rpcs_total", "method")}, "reqps",
        ),
        Chart(
            "RPC time, p99", "Retrieve waits on purpose.",
            {"{{method}}": quantile(0.99, "ddq_rpc_seconds", "method")}, "s",
        ),
        Chart(
            "Failed RPCs per second", "By code and reason.",
            {"{{code}} {{reason}}": rate("ddq_rpcs_total", "code, reason", 'code!="OK"')}, "reqps",
        ),
        Chart(
            "RPCs under way", "Waiting ones included.",
            {"{{method}}": f"sum by (method) (ddq_rpcs_running{{{CHOSEN}}})"},
        ),
        Chart(
            "Calls refused or ended by the server's bounds", "By the bound that was reached.",
            {
                "{{bound}}": rate("ddq_calls_refused_total", "bound"),
                "stalled": rate("ddq_calls_stalled_total"),
            }, "reqps",
        ),
    ),
    "Store": (
        Chart("Send time", "Of each send to the store.", quantiles("ddq_store_send_seconds"), "s"),
        Chart(
            "Barrier time", "Of the sends that wait for replicas.",
            quantiles("ddq_barrier_seconds"), "s",
        ),
        Chart(
            "Held replies", "Replies that waited for a later barrier than that of their own send.",
            quantiles("ddq_barrier_held_seconds"), "s",
        ),
        Chart(
            "Barriers and masters", "Chains that broke and masters that were replaced, in 5 min.",
            {
                "breaks": f"sum(increase(ddq_barrier_breaks_total{{{CHOSEN}}}[5m]))",
                "masters lost": f"sum(increase(ddq_masters_lost_total{{{CHOSEN}}}[5m]))",
                "replies held now": f"sum(ddq_store_replies_held{{{CHOSEN}}})",
            },
        ),
        Chart(
            "Store errors per second", "By reason; one request may be tried several times.",
            {"{{reason}}": f"{rate('ddq_store_errors_total', 'reason')} > 0"}, "reqps",
        ),
        Chart(
            "Scripts that wait", "To be sent, for their answer, or for the barrier.",
            {
                "running": f"sum(ddq_store_requests_running{{{CHOSEN}}})",
                "sends failed per second": rate("ddq_store_sends_failed_total"),
            },
        ),
    ),
    "Processes": (
        Chart(
            "Processor time", "1 is one core.",
            {"{{instance}}": rate("process_cpu_seconds_total", "instance")},
        ),
        Chart(
            "Memory", "Resident.",
            {"{{instance}}": f"process_resident_memory_bytes{{{CHOSEN}}}"}, "bytes",
        ),
        Chart(
            "Open files", "Connections included.",
            {"{{instance}}": f"process_open_fds{{{CHOSEN}}}"},
        ),
    ),
}  # fmt: skip


def queries() -> list[str]:
    """Every query of the dashboard."""
    return [query for row in ROWS.values() for chart in row for query in chart.queries.values()]


def dashboard() -> str:
    """deploy/grafana/ddq.json."""
    made = (
        Dashboard("ddq")
        .uid("ddq")
        .description("A distributed delay queue. docs/OPERATIONS.md says what each metric means.")
        .tags(["ddq"])
        .refresh("30s")
        .time("now-1h", "now")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            QueryVariable("instance")
            .label("Process")
            .datasource(SOURCE)
            .query("label_values(ddq_build_info, instance)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    )
    ids = itertools.count(1)
    for title, charts in ROWS.items():
        made = made.with_row(Row(title).id(next(ids)))
        for chart in charts:
            made = made.with_panel(_panel(chart, next(ids)))
    return json.dumps(json.loads(JSONEncoder(sort_keys=True).encode(made.build())), indent=1) + "\n"


def _panel(chart: Chart, number: int) -> StatPanel | TimeseriesPanel:
    single = chart.bad_from is not None or chart.bad_below is not None
    panel = _stat(chart) if single else _lines()
    panel = (
        panel.id(number)
        .title(chart.title)
        .description(chart.about)
        .datasource(SOURCE)
        .unit(chart.unit)
        .span(chart.columns)
        .height(4 if single else 8)
    )
    for name, query in chart.queries.items():
        panel = panel.with_target(Dataquery().expr(query).legend_format(name or "__auto"))
    return panel


def _stat(chart: Chart) -> StatPanel:
    if chart.bad_below is not None:
        steps = [Threshold(value=None, color="red"), Threshold(chart.bad_below, "green")]
    else:
        steps = [Threshold(value=None, color="green"), Threshold(chart.bad_from, "red")]
    return (
        StatPanel()
        .color_mode(BigValueColorMode.VALUE)
        .thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    )


def _lines() -> TimeseriesPanel:
    return (
        TimeseriesPanel()
        .fill_opacity(8)
        .min(0)
        .legend(
            VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
