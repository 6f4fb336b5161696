"""The core of `make failover`: a master is killed under traffic, and the promises are judged."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from chaos.checker.judge import Results
from chaos.experiments.conclude import conclude
from chaos.experiments.plan import RunPlan
from chaos.experiments.recorded import perform
from chaos.experiments.scenario_run import scenario_experiment
from chaos.faults import Mode
from chaos.faults.nemesis import Schedule, Step
from models.promises import PROMISES, Scope

DOWN_AFTER_MS = 1_500
ALWAYS = {promise.id for promise in PROMISES if promise.in_fast is Scope.ALWAYS}


async def judged(plan: RunPlan, folder: Path) -> Results:
    """A run and its verdict."""
    problems = await perform(scenario_experiment(plan), plan, folder, Console(quiet=True))
    return conclude(plan, folder, problems).results


def explanation(results: Results) -> str:
    """The verdict, anomalies, unmet gates and problems of a run, as an assertion's message."""
    anomalies = [
        anomaly["summary"] for promise in results.promises for anomaly in promise.anomalies[:3]
    ]
    unmet = [f"{gate.name}: {gate.measured:g} of {gate.required:g}" for gate in results.gates
             if not gate.met]  # fmt: skip
    unknown = [reason for promise in results.promises for reason in promise.unknown]
    return "\n".join([results.verdict, *anomalies, *unmet, *unknown, *results.problems])


@pytest.mark.parametrize("mode", [Mode.FAST, Mode.QUORUM])
async def test_a_killed_master_comes_back_as_a_replica_and_the_promises_of_the_mode_hold(
    mode: Mode, tmp_path: Path
) -> None:
    kill = Step("kill", "master", {}, wait_ms=200, hold_ms=DOWN_AFTER_MS // 2)
    plan = RunPlan(
        "failover", 1, mode, rate=60, down_after_ms=DOWN_AFTER_MS, workload="cancel-race",
        schedules=(Schedule(((kill,),), DOWN_AFTER_MS),),
    )  # fmt: skip
    results = await judged(plan, tmp_path)
    kept = {promise.id for promise in results.promises if promise.verdict == "VALID"}
    explained = explanation(results)
    assert results.failovers >= 1, explained
    assert next(gate for gate in results.gates if gate.name == "faults verified").met, explained
    if mode is Mode.FAST:
        # What the others say is not promised across a failover.
        assert kept >= ALWAYS, explained
    else:
        assert results.verdict == "VALID", explained
