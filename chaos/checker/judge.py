"""Judges what a run left: read, group, resolve the unknowns, check, measure the gates, conclude."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from chaos.checker.availability import longest_outages, served
from chaos.checker.bounds import Bounds
from chaos.checker.explained import unexplained
from chaos.checker.gates import Gate, measure, required_gates
from chaos.checker.promises import CHECKERS, Checker, Need
from chaos.checker.replies import false_replies
from chaos.checker.resolve import Resolution, resolve
from chaos.checker.search import TooLargeError
from chaos.checker.verdict import Anomaly, Found, Verdict
from chaos.checker.view import RunView
from chaos.history.journal import Journal, read_journal
from chaos.history.notes import TopicSettings
from chaos.history.reader import BadHistoryError, History, read_history
from chaos.history.run_folder import Final, Run
from models.promises import BY_ID

MAX_LISTED_ANOMALIES = 100
"""Anomalies of one promise that a result lists; all are counted."""

_NO_GATES: Mapping[str, float] = MappingProxyType({})


class PromiseResult(msgspec.Struct):
    """The outcome of one promise."""

    id: str
    name: str
    verdict: Literal["VALID", "UNKNOWN", "INVALID"]
    judged: int = 0
    anomaly_count: int = 0
    lost_lineage_count: int = 0
    anomalies: list[dict[str, Any]] = msgspec.field(default_factory=list)
    unknown: list[str] = msgspec.field(default_factory=list)
    figures: dict[str, Any] = msgspec.field(default_factory=dict)


class Results(msgspec.Struct):
    """The verdict on a run and what it rests on; ``results.json``."""

    verdict: Literal["VALID", "UNKNOWN", "INVALID"]
    promises: list[PromiseResult]
    gates: list[Gate] = msgspec.field(default_factory=list)
    problems: list[str] = msgspec.field(default_factory=list)
    bounds: Bounds = msgspec.field(default_factory=Bounds)
    events: int = 0
    operations: dict[str, int] = msgspec.field(default_factory=dict)
    unknowns: dict[str, int] = msgspec.field(default_factory=dict)
    failovers: int = 0
    outage_ms: dict[str, float] = msgspec.field(default_factory=dict)
    tasks: int = 0
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """As chaos/checker/verdict.py has it."""
        return Verdict[self.verdict].exit_code


def write_results(run: Run, results: Results) -> None:
    """Leaves the verdict for programs."""
    run.results.write_bytes(msgspec.json.format(msgspec.json.encode(results)))


class Judgement(msgspec.Struct):
    """Results, and the view that a report draws from."""

    results: Results
    view: RunView


def judge(
    run: Run, bounds: Bounds | None = None, checkers: Iterable[Checker] = CHECKERS
) -> Judgement:
    """Judges a run's folder.

    Raises:
        BadHistoryError: a file of it cannot be read, so no verdict can be given.
    """
    with _collector_off():
        started = time.perf_counter()
        judgement = judge_history(
            read_history(run.history),
            read_journal(run.journal) if run.journal.exists() else None,
            run.read_final(),
            bounds=bounds or Bounds(),
            checkers=checkers,
            required=required_gates(run.schedule),
            problems=run.read_problems(),
        )
        judgement.results.seconds = round(time.perf_counter() - started, 3)
    return judgement


def judge_history(
    history: History,
    journal: Journal | None,
    final: Final | None,
    *,
    bounds: Bounds,
    checkers: Iterable[Checker] = CHECKERS,
    required: Mapping[str, float] = _NO_GATES,
    problems: Iterable[str] = (),
) -> Judgement:
    """Judges a history that is in memory, as ``judge`` does one in a run's folder.

    Args:
        journal: of the surviving shards; None: there is none.
        final: what was left after the drain; None: there was no drain.
        required: coverage gates by name, with what each requires.
        problems: of the run itself; any of them makes the verdict UNKNOWN at best.
    """
    view = RunView(history, journal, final, bounds)
    unknowns = resolve(view)
    gates = measure(view, unknowns, dict(required))
    return Judgement(_results(view, unknowns, gates, checkers, problems), view)


def judge_journal(path: Path, max_attempts: int | None = None) -> Judgement:
    """Judges a journal by itself, for example one of production.

    Args:
        max_attempts: of every task's retry policy; None: not known, and the bound is not judged.

    Raises:
        BadHistoryError: it cannot be read.
    """
    with _collector_off():
        journal = read_journal(path)
        view = RunView(History([], [], []), journal, None, Bounds(), journal_alone=True)
        if not journal.entries:
            journal.problems.append(f"{path.name}: no entry is in it")
        if max_attempts is not None:
            for topic in {entry.topic for entry in journal.entries}:
                view.run.topics[topic] = TopicSettings(journal=True)
                view.run.topics[topic].policy.max_attempts = max_attempts
        readers = [checker for checker in CHECKERS if checker.reads_journal]
        return Judgement(_results(view, Resolution(), [], readers), view)


def _results(
    view: RunView,
    unknowns: Resolution,
    gates: list[Gate],
    checkers: Iterable[Checker],
    of_the_run: Iterable[str] = (),
) -> Results:
    found = {checker.promise: _run(view, checker) for checker in checkers}
    if view.history.ops:
        _cross_check(view, found)
    history = view.history
    problems = [*history.problems, *of_the_run]
    if view.journal is not None:
        problems += view.journal.problems
    if not view.journal_alone and all(served(op) is not True for op in history.ops):
        problems.append("no operation succeeded: nothing was proved")
    promises = [_promise(promise, one) for promise, one in found.items()]
    verdict = max([Verdict.VALID, *(Verdict[promise.verdict] for promise in promises)])
    if problems or not all(gate.met for gate in gates):
        verdict = max(verdict, Verdict.UNKNOWN)
    outcomes: dict[str, int] = {}
    for op in history.ops:
        outcomes[op.outcome] = outcomes.get(op.outcome, 0) + 1
    return Results(
        verdict=_name(verdict),
        promises=promises,
        gates=gates,
        problems=problems,
        bounds=view.bounds,
        events=history.events,
        operations=outcomes,
        unknowns={
            "all": unknowns.unknown,
            "applied": unknowns.applied,
            "absent": unknowns.absent,
            "open": unknowns.open,
        },
        failovers=len(view.timeline.failovers_ns),
        outage_ms={kind: ns / 1e6 for kind, ns in sorted(longest_outages(history.ops).items())},
        tasks=len(view.grouped.cases),
    )


def _run(view: RunView, checker: Checker) -> Found:
    missing = []
    if Need.REPLIES in checker.needs and not view.history.ops and not view.journal_alone:
        missing.append(Need.REPLIES)
    if Need.JOURNAL in checker.needs and view.journal is None:
        missing.append(Need.JOURNAL)
    if Need.DRAIN in checker.needs and view.final is None:
        missing.append(Need.DRAIN)
    if missing:
        return Found(unknown=[f"needs {need.value}, which is not there" for need in missing])
    try:
        found = checker.check(view)
    except Exception as error:  # noqa: BLE001 - a checker's crash is not a verdict
        return Found(unknown=[f"the checker crashed: {type(error).__name__}: {error}"])
    if Need.JOURNAL in checker.needs and view.journal is not None:
        found.unknown += view.journal.problems
    found.unknown += view.history.problems
    return found


def _cross_check(view: RunView, found: dict[str, Found]) -> None:
    """What is wrong with tasks of which no promise's own rule has found anything.

    A judgement by some of the checkers is about their promises only.
    """
    if len(found) < len(CHECKERS):
        return
    named = {(a.topic, a.task) for one in found.values() for a in one.anomalies}

    def tell(anomaly: Anomaly) -> None:
        if (anomaly.topic, anomaly.task) not in named:
            named.add((anomaly.topic, anomaly.task))
            found[anomaly.promise].anomalies.append(anomaly)

    for anomaly in false_replies(view):
        tell(anomaly)
    for case in view.cases:
        if (case.topic, case.id) in named:
            continue
        try:
            wrong = unexplained(view, case)
        except TooLargeError:
            found["G4"].unknown.append(
                f"task {case.name}: whether its replies can be explained took more than "
                f"{view.bounds.search_nodes} tries"
            )
        else:
            if wrong is not None:
                tell(wrong)


def _promise(promise: str, found: Found) -> PromiseResult:
    return PromiseResult(
        id=promise,
        name=BY_ID[promise].name,
        verdict=_name(found.verdict),
        judged=found.looked_at,
        anomaly_count=len(found.anomalies),
        lost_lineage_count=sum(anomaly.lost_lineage for anomaly in found.anomalies),
        anomalies=[format_anomaly(anomaly) for anomaly in found.anomalies[:MAX_LISTED_ANOMALIES]],
        unknown=found.unknown,
        figures=found.figures,
    )


def format_anomaly(anomaly: Anomaly) -> dict[str, Any]:
    """An anomaly as people and programs read it."""
    name = BY_ID[anomaly.promise].name
    return {
        "summary": f"{anomaly.promise} {name}: {anomaly.summary}",
        "topic": anomaly.topic,
        "task": anomaly.task,
        "events": list(anomaly.events),
        "entries": list(anomaly.entries),
        "lost_lineage": anomaly.lost_lineage,
    }


def _name(verdict: Verdict) -> Literal["VALID", "UNKNOWN", "INVALID"]:
    names: dict[Verdict, Literal["VALID", "UNKNOWN", "INVALID"]] = {
        Verdict.VALID: "VALID",
        Verdict.UNKNOWN: "UNKNOWN",
        Verdict.INVALID: "INVALID",
    }
    return names[verdict]


@contextmanager
def _collector_off() -> Iterator[None]:
    """A history has no cycles, and a million events make the collector look at it for nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


__all__ = [
    "BadHistoryError",
    "Judgement",
    "PromiseResult",
    "Results",
    "judge",
    "judge_history",
    "judge_journal",
    "write_results",
]
