"""The workflows call what exists, decide nothing, and run no unpinned code of others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from chaos.clusters import Ability
from chaos.experiments.scenarios import REGRESSION
from tests.support.make_targets import make_targets
from tools.repo import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*\s*")
TARGETS = make_targets()


def load(workflow: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(workflow.read_text())
    return loaded


def commands(workflow: Path) -> Iterator[str]:
    for job in load(workflow)["jobs"].values():
        yield from (step["run"] for step in job["steps"] if "run" in step)


def test_there_are_three() -> None:
    assert [workflow.name for workflow in WORKFLOWS] == ["ci.yaml", "nightly.yaml", "release.yaml"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
class TestWorkflow:
    def test_actions_are_pinned_by_commit(self, workflow: Path) -> None:
        lines = [line for line in workflow.read_text().splitlines() if "uses:" in line]
        assert lines
        loose = [line for line in lines if not PINNED.fullmatch(line.strip().removeprefix("- "))]
        assert loose == []

    def test_an_action_has_one_commit_everywhere(self, workflow: Path) -> None:
        everywhere = "\n".join(path.read_text() for path in WORKFLOWS)
        for action in re.findall(r"uses: ([\w./-]+)@", workflow.read_text()):
            assert len(set(re.findall(rf"uses: {action}@(\S+)", everywhere))) == 1, action

    def test_a_step_is_one_call(self, workflow: Path) -> None:
        # Commands in a workflow run nowhere else, so they cannot be tried before they are needed.
        for command in commands(workflow):
            assert "\n" not in command.strip(), command
            assert not re.search(r"&&|;|\bif\b|\$\(", command), command

    def test_called_targets_and_scripts_exist(self, workflow: Path) -> None:
        for command in commands(workflow):
            for target in re.findall(r"\bmake (?:--silent )?([a-z0-9-]+)", command):
                assert target in TARGETS, command
            for module in re.findall(r"python3 -m ([\w.]+)", command):
                assert (ROOT / (module.replace(".", "/") + ".py")).is_file(), command

    def test_nothing_foreign_is_pasted_into_a_command(self, workflow: Path) -> None:
        # A branch name or a request's text may hold `$(...)`; through the environment it is data.
        for command in commands(workflow):
            assert "${{" not in command, command

    def test_it_may_only_read_unless_a_job_says_otherwise(self, workflow: Path) -> None:
        assert load(workflow)["permissions"] == {"contents": "read"}

    def test_every_job_ends(self, workflow: Path) -> None:
        for name, job in load(workflow)["jobs"].items():
            assert job["timeout-minutes"] <= 180, name


def test_the_tests_run_on_every_python_that_the_package_names() -> None:
    classifiers = re.findall(
        r"Programming Language :: Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text()
    )
    matrix = load(ROOT / ".github/workflows/ci.yaml")["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == classifiers


def test_chaos_runs_every_scenario_that_there_is_on_four_stores() -> None:
    jobs = load(ROOT / ".github/workflows/nightly.yaml")["jobs"]
    matrix = jobs["chaos"]["strategy"]["matrix"]
    power = [each.name for each in REGRESSION if Ability.POWER in each.needs]
    others = [each.name for each in REGRESSION if each.name not in power]
    assert matrix["scenario"] == [*others, "exploratory"]
    # Containers cannot lose what they have not synchronized.
    assert jobs["chaos-power"]["strategy"]["matrix"]["scenario"] == power
    # Two versions each of Valkey and Redis.
    assert [re.sub(r"-bookworm$", "", store) for store in matrix["store"]] == [
        "valkey-9", "valkey-8", "redis:8", "redis:7.2",
    ]  # fmt: skip
    # More jobs than that are refused.
    assert len(matrix["scenario"]) * len(matrix["store"]) <= 256


def test_the_preview_of_the_changelog_is_kept_a_week() -> None:
    steps = load(ROOT / ".github/workflows/ci.yaml")["jobs"]["release-readiness"]["steps"]
    (upload,) = [step["with"] for step in steps if "upload-artifact" in step.get("uses", "")]
    assert upload["retention-days"] == 7
