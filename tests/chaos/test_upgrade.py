"""Servers of the previous release, upgraded one after the other under traffic."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from chaos.experiments.conclude import conclude
from chaos.experiments.maintenance.procedure import ProcedurePlan, failed_lines
from chaos.experiments.maintenance.upgrade import UPGRADE
from chaos.experiments.recorded import perform
from chaos.faults import Mode
from chaos.systems.ddq.previous_release import PREVIOUS
from tests.chaos.test_failover import explanation


async def test_a_rolling_upgrade_loses_nothing_and_fails_no_request(tmp_path: Path) -> None:
    plan = ProcedurePlan("upgrade", 1, Mode.FAST, rate=40)
    problems = await perform(UPGRADE.experiment, plan, tmp_path, Console(quiet=True))
    results = conclude(plan, tmp_path, problems).results
    assert results.verdict == "VALID", explanation(results)
    assert failed_lines(tmp_path) == []
    for log in (tmp_path / "ddq").glob("api*.log"):
        before, after = (line for line in log.read_text().splitlines() if line.startswith("ddq "))
        # The previous one had one node, this one asks the Sentinels.
        assert before.startswith(f"ddq {PREVIOUS} ")
        assert "store redis://" in before
        assert "store sentinel://" in after
