"""What scenarios are made of, plans that come back from disk, and what a campaign concludes."""

from __future__ import annotations

import asyncio
import random
import sys
import xml.etree.ElementTree as ET
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from chaos.checker.gates import GATES
from chaos.checker.judge import PromiseResult, Results
from chaos.checker.timeline import timeline
from chaos.experiments.campaign import WHOLE_GATES, RunOutcome, exit_code, run_all, whole_gates
from chaos.experiments.plan import RunPlan, read_plan, save_plan, saved_bounds
from chaos.experiments.scenarios import CORE, REGRESSION, SCENARIOS, SMOKE, scenario
from chaos.experiments.timers import timers
from chaos.faults import KINDS, FaultRow, Mode
from chaos.history.notes import FaultNote
from chaos.history.reader import BadHistoryError, History, Note
from chaos.report.junit import write_junit
from chaos.systems.ddq.process import DdqProcess
from chaos.workloads import find_workload
from chaos.workloads.actor import Actor, Load


def test_every_scenario_draws_equal_faults_from_equal_seeds_and_claims_what_its_faults_allow() -> (
    None
):
    for each in SCENARIOS.values():
        mode = each.mode(None)
        assert mode is not None, each.name
        one, same, other = (
            each.schedule(seed, 2_000, mode, lambda _kind, _target: True) for seed in (7, 7, 8)
        )
        assert one == same
        assert one.down_after_ms == 2_000
        for step in (step for track in one.tracks for step in track):
            claimed = next(kind for kind in KINDS if kind.name == step.kind).targets[step.target]
            assert mode in claimed, (each.name, step)
        if each.name in {"master-paused", "everything", "exploratory"}:
            assert one != other
    assert scenario("cut-through-a-host").mode(None) is Mode.ALL
    assert scenario("cut-through-a-host").mode(Mode.FAST) is Mode.FAST
    assert scenario("master-killed").mode(None) is Mode.QUORUM
    assert set(CORE) | set(SMOKE) <= set(SCENARIOS)
    assert all(gate in GATES for each in REGRESSION for gate in each.gates)


def test_each_fault_that_a_mode_claims_is_in_a_regression_scenario_for_each_of_its_targets() -> (
    None
):
    played = {
        (step.kind, step.target)
        for each in REGRESSION
        for track in each.schedule(1, 2_000, Mode.ALL, lambda *_: True).tracks
        for step in track
    }
    claimed = {
        (kind.name, target) for kind in KINDS for target, modes in kind.targets.items() if modes
    }
    assert claimed <= played, claimed - played


def test_faults_that_are_claimed_with_fsync_are_played_with_it_only() -> None:
    assert scenario("power-lost-everywhere").fsync
    assert not any(each.fsync for each in REGRESSION if each.name != "power-lost-everywhere")
    drawn = scenario("exploratory").schedule(5, 2_000, Mode.ALL, lambda kind, _: not kind.fsync)
    assert "power-loss-everywhere" not in {step.kind for track in drawn.tracks for step in track}


def test_the_pauses_around_down_after_are_spread_over_their_whole_range() -> None:
    holds = sorted(
        step.hold_ms / 2_000
        for step in scenario("master-paused")
        .schedule(3, 2_000, Mode.QUORUM, lambda *_: True)
        .tracks[0]
    )
    assert len(holds) == 2
    for n, hold in enumerate(holds):
        assert 1 + n - 0.001 <= hold <= 2 + n


def test_a_plan_comes_back_from_disk_with_what_was_played(tmp_path: Path) -> None:
    plan = RunPlan("master-killed", 11, Mode.ALL, fsync=True, rate=12.5, workload="bank")
    schedule = scenario(plan.scenario).schedule(11, 2_000, plan.mode, lambda *_: True)
    path = tmp_path / "schedule.json"
    save_plan(path, plan, {"failovers": 2}, [schedule], timers_late_ms=20.0)
    assert read_plan(path) == replace(plan, schedules=(schedule,))
    # What it is judged by: the machine's own lateness counts once for each hop.
    assert (saved_bounds(path).recovery_ms, saved_bounds(path).lateness_ms) == (5_800, 310)
    path.write_text("{}")
    with pytest.raises(BadHistoryError, match="no plan"):
        read_plan(path)


def test_an_anomaly_outweighs_an_unknown_verdict() -> None:
    valid, unknown, invalid, failed = (
        RunOutcome(word, word) for word in ("VALID", "UNKNOWN", "INVALID", "FAILED")
    )
    assert exit_code([valid]) == 0
    assert exit_code([valid, unknown]) == 2
    assert exit_code([unknown, failed]) == 3
    assert exit_code([unknown, invalid, failed]) == 1


def test_all_runs_together_have_gates_of_their_own() -> None:
    enough = dict.fromkeys(WHOLE_GATES, 10_000.0)
    runs = [
        RunOutcome("a", "VALID", measured=enough, rows=[row.value for row in list(FaultRow)[:4]]),
        RunOutcome("b", "VALID", measured=enough, rows=[row.value for row in list(FaultRow)[4:]]),
    ]
    assert WHOLE_GATES.keys() <= GATES.keys()
    assert all(gate.met for gate in whole_gates(runs))
    unmet = {gate.name for gate in whole_gates(runs[:1]) if not gate.met}
    assert unmet == {"operations", "rows of the table of faults"}


def test_a_campaign_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def run_one(plan: RunPlan, _console: Console, _runs: Path) -> RunOutcome:
        if len(ran) == 1:
            raise KeyboardInterrupt
        ran.append(plan.name)
        return RunOutcome(plan.name, "VALID")

    monkeypatch.setattr("chaos.experiments.campaign.run_one", run_one)
    plans = [RunPlan("master-killed", seed, Mode.QUORUM) for seed in (1, 2)]
    resume, quiet = tmp_path / "deep" / "kept.jsonl", Console(quiet=True)
    with pytest.raises(KeyboardInterrupt):
        run_all(plans, quiet, resume=resume)
    ran.clear()
    assert [one.verdict for one in run_all(plans, quiet, resume=resume)] == ["VALID", "VALID"]
    assert ran == [plans[1].name]


def test_junit_has_a_failure_for_what_is_invalid_and_an_error_for_what_is_not_known(
    tmp_path: Path,
) -> None:
    anomaly = {"summary": 'G2 no loss: task <1> & "2"', "lost_lineage": False}
    results = Results(
        "INVALID",
        [
            PromiseResult("G2", "no loss", "INVALID", anomaly_count=1, anomalies=[anomaly]),
            PromiseResult("G3", "promote once", "UNKNOWN", unknown=["no journal"]),
            PromiseResult("G4", "cancel is final", "VALID"),
        ],
        problems=["it was interrupted"],
    )
    write_junit(tmp_path / "junit.xml", "here", results)
    suite = ET.parse(tmp_path / "junit.xml").getroot()  # noqa: S314 - written here
    assert suite.attrib["tests"] == "4"
    assert (suite.attrib["failures"], suite.attrib["errors"]) == ("1", "2")
    failure = suite.find(".//failure")
    assert failure is not None
    assert failure.attrib["message"] == anomaly["summary"]


def test_a_fault_that_was_not_seen_to_happen_does_not_count() -> None:
    history = History([], [], [], end_ns=9)
    for time_ns, phase, verified in ((1, "inject", True), (2, "heal", False)):
        fault = FaultNote("kill", "master", phase, verified, f"at {time_ns}")  # type: ignore[arg-type]
        history.notes.append(Note(0, time_ns, "nemesis", "fault", fault))
    (window,) = timeline(history).windows
    assert not window.verified
    assert window.detail == "at 1; at 2"


async def test_the_machine_says_how_late_its_own_timers_are(tmp_path: Path) -> None:
    async with timers(tmp_path) as measured:
        assert measured.late_ms() == 0.0
        while not measured.late_ms():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.05)
    (tmp_path / "timers.bin").write_bytes(array("d", [0.001] * 999 + [0.7, 0.5]).tobytes() + b"cut")
    assert measured.late_ms() == 700.0


async def test_an_actor_keeps_its_share_of_the_rate_and_does_not_catch_up_in_one_lump(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("chaos.workloads.actor.asyncio.sleep", sleep)
    recorder = type("NamedRecorder", (), {"process": "p0.3"})()
    streams: Any = None
    client: Any = None
    load = Load(["t"], rate=10.0)
    actor = Actor(load, recorder, streams, client, random.Random(1), 0, share=0.1)
    for _ in range(50):
        await actor.pace()
    # One operation per second, less what may be caught up: the sleeps took no time here.
    assert 45 < slept[-1] < 55
    assert [actor.new_id(), actor.new_id()] == ["p0-1", "p0-2"]


async def test_a_process_that_ends_by_itself_is_started_again_and_one_that_was_killed_is_not(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", "print('ready', flush=True)"]
    process = DdqProcess("api1", "127.0.0.1", command, tmp_path, "ready")
    await process.restart()
    while process.log.read_text().count("ready") < 2:  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(0.05)
    await process.kill()
    assert not process.alive()
    assert not process.ready()
    assert not [task for task in asyncio.all_tasks() if "keeps api1" in task.get_name()]


def test_a_workload_is_found_by_its_name_of_0_2_0() -> None:
    assert find_workload("patient") is find_workload("long-timeouts")
    with pytest.raises(KeyError):
        find_workload("none")
