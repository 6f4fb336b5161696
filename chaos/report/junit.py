"""A verdict as JUnit XML: a suite a run, a case a promise and a gate."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

from chaos.checker.judge import Results


def write_junit(path: Path, name: str, results: Results) -> None:
    """INVALID is a failure, UNKNOWN an error."""
    cases: list[tuple[str, str, str]] = []
    for promise in results.promises:
        messages = [anomaly["summary"] for anomaly in promise.anomalies[:3]] or promise.unknown[:3]
        kind = {"INVALID": "failure", "UNKNOWN": "error"}.get(promise.verdict, "")
        cases.append((f"{promise.id} {promise.name}", kind, "; ".join(messages)))
    for gate in results.gates:
        kind = "" if gate.met else "error"
        cases.append((f"gate {gate.name}", kind, f"{gate.measured:g} of {gate.required:g}"))
    cases += [("run", "error", problem) for problem in results.problems]
    failures = sum(kind == "failure" for _, kind, _ in cases)
    errors = sum(kind == "error" for _, kind, _ in cases)
    counts = f'tests="{len(cases)}" failures="{failures}" errors="{errors}"'
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        f"<testsuite name={quoteattr(f'chaos.{name}')} {counts}>",
        *(_case(name, *case) for case in cases),
        "</testsuite>",
        "",
    ]
    path.write_text("\n".join(lines))


def _case(suite: str, name: str, kind: str, message: str) -> str:
    head = f"  <testcase classname={quoteattr(f'chaos.{suite}')} name={quoteattr(name)}"
    return f"{head}><{kind} message={quoteattr(message)}/></testcase>" if kind else f"{head}/>"
