"""A verdict in the terminal: one short table, and under it what has to be known of it."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chaos.checker.judge import PromiseResult, Results

COLOURS = {"VALID": "green", "UNKNOWN": "yellow", "INVALID": "red"}
FIRST = 3
"""Anomalies of one promise that are shown; the rest is in results.json."""


def show(results: Results, console: Console) -> None:
    """Prints it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("id", no_wrap=True)
    table.add_column("promise", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("judged", justify="right")
    table.add_column("broken", justify="right")
    table.add_column("of it in a lost lineage", justify="right")
    for promise in results.promises:
        table.add_row(
            promise.id,
            promise.name,
            _coloured(promise.verdict),
            f"{promise.judged:,}",
            f"{promise.anomaly_count:,}" if promise.anomaly_count else "",
            f"{promise.lost_lineage_count:,}" if promise.lost_lineage_count else "",
        )
    console.print(table)
    for promise in results.promises:
        _notes(promise, console)
    for gate in results.gates:
        mark = "[green]met[/]" if gate.met else "[yellow]not met[/]"
        console.print(f"gate {mark}: {gate.name} {gate.measured:g}, required {gate.required:g}")
    for problem in results.problems:
        console.print(f"[yellow]problem[/]: {escape(problem)}", soft_wrap=True)
    asked = sum(results.operations.values())
    console.print(
        f"{results.events:,} events, {asked:,} operations on {results.tasks:,} tasks, "
        f"{results.failovers} failovers, {results.unknowns.get('all', 0):,} unknown outcomes "
        f"({results.unknowns.get('applied', 0):,} proved applied, "
        f"{results.unknowns.get('absent', 0):,} proved absent), judged in {results.seconds:.1f} s",
        soft_wrap=True,
    )
    if not results.gates:
        console.print("no coverage gates were declared: nothing says how much this run has proved")
    console.print(f"verdict: {_coloured(results.verdict)}")


def _notes(promise: PromiseResult, console: Console) -> None:
    for anomaly in promise.anomalies[:FIRST]:
        lost = " [dim](lost lineage)[/]" if anomaly["lost_lineage"] else ""
        console.print(f"[red]{escape(anomaly['summary'])}[/]{lost}", soft_wrap=True)
    if promise.anomaly_count > FIRST:
        console.print(f"{promise.id}: and {promise.anomaly_count - FIRST:,} more")
    for reason in promise.unknown:
        console.print(f"[yellow]{promise.id} UNKNOWN[/]: {escape(reason)}", soft_wrap=True)
    for name, value in promise.figures.items():
        if isinstance(value, dict):
            inner = ", ".join(f"{key} {inner}" for key, inner in value.items())
            console.print(f"[dim]{promise.id} {name}: {inner}[/]", soft_wrap=True)


def _coloured(verdict: str) -> str:
    return f"[bold {COLOURS[verdict]}]{verdict}[/]"
