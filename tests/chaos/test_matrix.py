"""What the durability matrix plays and concludes; a real one is `make durability-matrix`."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from chaos.cli.matrix import exit_code
from chaos.experiments.matrix.rows import ROWS, row
from chaos.experiments.matrix.run import MatrixPlan, measure_matrix, read_steps
from chaos.experiments.matrix.step import StepResult
from chaos.experiments.matrix.table import cells, markdown
from chaos.faults import Mode
from chaos.faults.catalogue import NO_MODE


def step(
    name: str = "pause", mode: str = "quorum", number: int = 0, *, rule: bool = True, **more: object
) -> StepResult:
    seen: dict[str, object] = {"happened": True, "acked": 100, "outage_s": 1.0, **more}
    return StepResult(name, mode, rule, number, 2, **seen)  # type: ignore[arg-type]


def test_pauses_and_cuts_go_evenly_from_one_to_three_times_down_after() -> None:
    for name in ("pause", "pause-blind", "cut", "cut-blind"):
        assert row(name).steps >= 20
        holds = [row(name).schedule(n, 5, 1_000).tracks[0][0].hold_ms for n in range(5)]
        assert holds == [1_000, 1_500, 2_000, 2_500, 3_000]
    # Those who are blind stay so until the old master has stepped down.
    assert row("pause-blind").schedule(4, 5, 2_000).tracks[1][0].hold_ms == 14_000


def test_the_rows_are_all_that_the_issue_names_and_claim_what_the_contract_does() -> None:
    assert {each.name for each in ROWS if each.claimed == NO_MODE} == {
        "empty-disk-unguarded", "power-loss-everywhere",
    }  # fmt: skip
    assert {each.name for each in ROWS if Mode.QUORUM not in each.claimed} == {
        "failover-plain", "empty-disk-unguarded", "cut-through-host",
        "cut-through-host-and-sentinel", "stray-replica", "unequal-priorities", "cluster-cut",
        "power-loss-everywhere", "power-loss-everywhere-fsync",
    }  # fmt: skip
    with pytest.raises(ValueError, match="no row is called 'x'"):
        row("x")


def test_a_cell_counts_only_what_happened_and_says_what_was_lost() -> None:
    found = cells(
        [
            step(number=0, outage_s=2.0, back_s=0.5),
            step(number=1, lost=7, outage_s=5.0, back_s=1.5),
            step(number=0, happened=False, lost=3),
            step(number=1, happened=False, problem="the cluster did not start"),
            step(mode="quorum", rule=False, lost=3),
            step("empty-disk-unguarded", lost=9),
        ]
    )
    pause, control, unguarded = found
    assert (pause.steps, pause.acked, pause.lost, pause.lossy_steps) == (2, 200, 7, 1)
    assert (pause.outage_p50_s, pause.outage_max_s, pause.back_p95_s) == (2.0, 5.0, 1.5)
    assert (pause.did_not_happen, pause.failed, pause.broken) == (1, 1, True)
    assert not control.broken
    assert not unguarded.broken
    text = markdown(found, "make durability-matrix")
    assert "**lost 7 of 200 in 1 of 2 steps**; 2.0 s, 5.0 s; back 1.5 s |" in text
    assert "| lost 3 of 100 in 1 of 1 steps; 1.0 s, 1.0 s |" in text


def test_a_claim_that_is_lost_is_invalid_and_a_control_that_loses_nothing_proves_nothing() -> None:
    control, blind = step(rule=False, lost=3), step(rule=False)
    assert exit_code(cells([step(), control])) == 0
    assert exit_code(cells([step(lost=1), control])) == 1
    assert exit_code(cells([step(), blind])) == 2
    assert exit_code(cells([step(happened=False)])) == 2
    assert exit_code(cells([step(happened=False, problem="no cluster")])) == 3


async def test_a_matrix_continues_with_the_steps_that_are_missing_or_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = MatrixPlan(
        [row("pause"), row("cut")], [(Mode.QUORUM, True)], tmp_path, "make durability-matrix", 2
    )
    asked: list[tuple[str, int]] = []

    async def run_on_one_deployment(
        plan: MatrixPlan, jobs: list[object], done: list[StepResult], _: Console
    ) -> int:
        job = jobs[0]
        asked.append((job.row.name, job.number))  # type: ignore[attr-defined]
        failed = "it failed" if len(asked) == 2 else ""
        result = step(job.row.name, number=job.number, problem=failed)  # type: ignore[attr-defined]
        done.append(result)
        with plan.log.open("ab") as log:
            log.write(msgspec.json.encode(result) + b"\n")
        return 1

    monkeypatch.setattr(
        "chaos.experiments.matrix.run._run_on_one_deployment", run_on_one_deployment
    )
    quiet = Console(quiet=True)
    await measure_matrix(plan, quiet)
    assert asked == [("cut", 0), ("cut", 1), ("pause", 0), ("pause", 1)]
    asked.clear()
    await measure_matrix(plan, quiet)
    assert asked == [("cut", 1)]
    assert len(read_steps(plan.log)) == 4
    assert "| pause: " in (tmp_path / "matrix.md").read_text()
