"""One issue for a failing night, not thirty; tried with something in gh's place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import report_failure

FAKE = """\
#!/bin/sh
printf '%s\\n' "$*" >>"$CALLS"
if [ "$2" = list ]; then cat "$ISSUES"; fi
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    gh = tmp_path / "bin" / "gh"
    gh.parent.mkdir()
    gh.write_text(FAKE)
    gh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{gh.parent}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("ISSUES", str(tmp_path / "issues"))
    for name, value in {
        "GITHUB_SERVER_URL": "https://example.org",
        "GITHUB_REPOSITORY": "o/r",
        "GITHUB_RUN_ID": "7",
        "GITHUB_SHA": "abc",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "calls"


def open_issues(calls: Path, *issues: tuple[int, str]) -> None:
    listed = [{"number": number, "title": title} for number, title in issues]
    (calls.parent / "issues").write_text(json.dumps(listed))


TEXT = "Run: https://example.org/o/r/actions/runs/7\nCommit: abc\nAgain, on that commit: "


def test_the_first_failure_opens_an_issue(calls: Path) -> None:
    open_issues(calls, (3, "The nightly run fails sometimes"))
    assert report_failure.main(["--title", "The nightly run fails", "--seed", "5"]) == 0
    expected = f"issue create --title The nightly run fails --body {TEXT}`make nightly SEED=5`\n"
    assert calls.read_text().endswith(expected)


def test_the_next_one_adds_to_it(calls: Path) -> None:
    open_issues(calls, (9, "The nightly run fails"), (4, "The nightly run fails"))
    assert report_failure.main(["--title", "The nightly run fails", "--seed", "5"]) == 0
    assert "issue comment 4 --body Run: https" in calls.read_text()
    assert "issue create" not in calls.read_text()


def test_it_names_the_command_that_runs_it_again(calls: Path) -> None:
    open_issues(calls)
    again = ["--again", "make chaos-nightly CLUSTER=docker"]
    assert report_failure.main(["--title", "x", "--seed", "5", *again]) == 0
    assert "`make chaos-nightly CLUSTER=docker SEED=5`" in calls.read_text()


def test_without_gh_the_failure_is_still_said(
    calls: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(calls.parent))
    assert report_failure.main(["--title", "The nightly run fails", "--seed", "5"]) == 1
    assert "make nightly SEED=5" in capsys.readouterr().out
