"""A run as one page: self-contained HTML that works from a disk, without a network.

This file reckons what the page shows; how it shows it is in chaos/assets.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from chaos.checker.cases import Case
from chaos.checker.judge import Judgement
from chaos.checker.promises.g06_bounded_lateness import quantile
from chaos.checker.timeline import Span
from chaos.checker.view import RunView
from chaos.history.operations import (
    plain,
)
from chaos.history.reader import Op
from chaos.history.run_folder import Run
from models.promises import BY_ID

ASSETS = Path(__file__).parent / "assets"
BINS = 240
"""Points of a curve; about one in four pixels."""
MOST_TIMELINES = 200
"""Tasks that the page can show by themselves: those of the first anomalies."""


def write_report(run: Run, judgement: Judgement) -> None:
    """Writes the page into the run's folder."""
    data = msgspec.json.encode(page_data(judgement)).decode()
    page = (ASSETS / "report.html").read_text()
    for mark, text in (
        ("/*CSS*/", (ASSETS / "report.css").read_text()),
        ("/*JS*/", (ASSETS / "report.js").read_text()),
        # A task's name may hold anything, an end of the script included.
        ("/*DATA*/", data.replace("<", "\\u003c")),
    ):
        page = page.replace(mark, text, 1)
    run.report.write_text(page)


def page_data(judgement: Judgement) -> dict[str, Any]:
    """All that the page shows; times in seconds since the start."""
    view, results = judgement.view, plain(judgement.results)
    for promise in results["promises"]:
        promise["sentence"] = BY_ID[promise["id"]].sentence
    for gate, shown in zip(judgement.results.gates, results["gates"], strict=True):
        shown["met"] = gate.met
    return {
        "results": results,
        "run": plain(view.run),
        "duration": view.history.end_ns / 1e9,
        "windows": [
            {
                "kind": window.kind,
                "target": window.target,
                "begin": window.begin_ns / 1e9,
                "end": window.end_ns / 1e9,
                "verified": window.verified,
                "detail": window.detail,
            }
            for window in view.timeline.windows
        ],
        "failovers": [time_ns / 1e9 for time_ns in view.timeline.failovers_ns],
        "roles": _spans(view.timeline.roles),
        "leaders": _spans(view.timeline.leaders),
        "curves": _curves(view),
        "timelines": _timelines(view, results["promises"]),
    }


def _spans(spans: Iterable[Span]) -> list[dict[str, Any]]:
    return [
        {
            "process": span.process,
            "state": span.state,
            "begin": span.begin_ns / 1e9,
            "end": span.end_ns / 1e9,
        }
        for span in spans
    ]


def _curves(view: RunView) -> dict[str, Any]:
    """Throughput by outcome, latency, lateness: one value a bin, None where there is nothing."""
    end_ns = max(1, view.history.end_ns)
    counts = {name: [0] * BINS for name in ("ok", "fail", "info")}
    latency: list[list[float]] = [[] for _ in range(BINS)]
    lateness: list[list[float]] = [[] for _ in range(BINS)]
    for op in view.history.ops:
        at = min(BINS - 1, min(op.closed_ns, end_ns) * BINS // end_ns)
        counts[op.outcome][at] += 1
        if op.ok and op.op != "retrieve":
            latency[at].append((op.end_ns - op.begin_ns) / 1e6)
    for case in view.cases:
        for due_ms, late_ms in _lateness(view, case):
            at = view.store_ns(due_ms) * BINS // end_ns
            if 0 <= at < BINS:
                lateness[at].append(late_ms)
    per_second = BINS / (end_ns / 1e9)
    return {
        "bins": BINS,
        "throughput": {
            name: [round(count * per_second, 1) for count in counts[name]] for name in counts
        },
        "latency": _quantiles(latency),
        "lateness": _quantiles(lateness),
    }


def _lateness(view: RunView, case: Case) -> Iterable[tuple[int, float]]:
    if view.journal is not None:
        for _, entry in case.entries:
            if entry.op == "promote":
                yield entry.due_ms, max(0, entry.at_ms - entry.due_ms)
    else:
        for delivery in case.deliveries:
            yield delivery.lease.due_ms, max(0, delivery.at_ms - delivery.lease.due_ms)


def _quantiles(bins: list[list[float]]) -> dict[str, list[float | None]]:
    ordered = [sorted(values) for values in bins]
    return {
        name: [quantile(values, share) if values else None for values in ordered]
        for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }


def _timelines(view: RunView, promises: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The timeline of each task that an anomaly names."""
    found: dict[str, list[dict[str, Any]]] = {}
    for promise in promises:
        for anomaly in promise["anomalies"]:
            key = (anomaly["topic"], anomaly["task"])
            if key in view.grouped.cases and len(found) < MOST_TIMELINES:
                case = view.grouped.cases[key]
                found.setdefault(case.name, _timeline(view, case))
    return found


def _timeline(view: RunView, case: Case) -> list[dict[str, Any]]:
    seen: set[int] = set()
    rows: list[dict[str, Any]] = []
    for op in (*case.all_ops(), *case.redrives):
        if id(op) not in seen:
            seen.add(id(op))
            rows.append(_row(view, case, op))
    for position, entry in case.entries:
        at_ns = view.store_ns(entry.at_ms)
        rows.append(
            {
                "begin": at_ns / 1e9,
                "end": at_ns / 1e9,
                "who": "journal",
                "what": entry.op,
                "outcome": "journal",
                "events": [],
                "entry": position,
                "detail": plain(entry),
            }
        )
    return sorted(rows, key=lambda row: float(row["begin"]))


def _row(view: RunView, case: Case, op: Op) -> dict[str, Any]:
    reply = op.reply
    if op.op == "retrieve" and reply is not None:
        reply = next(lease for lease in reply.leases if lease.id == case.id)
    detail: dict[str, Any] = {"request": plain(op.request)}
    if reply is not None:
        detail["reply"] = plain(reply)
    if op.error:
        detail["error"] = op.error
    if op.fate:
        detail["later proved"] = op.fate
    return {
        "begin": op.begin_ns / 1e9,
        "end": min(op.closed_ns, view.history.end_ns) / 1e9,
        "who": op.process,
        "what": op.op,
        "outcome": op.outcome,
        "events": [op.index, op.end] if op.end >= 0 else [op.index],
        "lost": view.lost(op, case),
        "detail": detail,
    }


__all__ = ["page_data", "write_report"]
