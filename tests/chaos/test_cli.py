"""``python -m chaos check``: what it prints, what it leaves, and what its status says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from chaos.cli.app import main
from chaos.experiments.matrix.step import StepResult
from chaos.history.synthetic import write_run
from tests.chaos.test_promises import g1, once


def test_the_status_is_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    valid = write_run(tmp_path / "valid", once())
    assert main(["check", str(valid.folder)]) == 0
    assert "verdict: VALID" in capsys.readouterr().out

    history = once()
    g1(history)
    invalid = write_run(tmp_path / "invalid", history)
    assert main(["check", str(invalid.folder)]) == 1
    shown = capsys.readouterr().out
    assert "G1 no phantom: task work/a was delivered with 'another' at 3.1" in shown
    assert "verdict: INVALID" in shown
    results = json.loads(invalid.results.read_bytes())
    assert results["verdict"] == "INVALID"
    assert results["promises"][0]["anomalies"][0]["task"] == "a"
    assert "<title>" in invalid.report.read_text()

    unknown = write_run(tmp_path / "unknown", once(), journal=False)
    assert main(["check", str(unknown.folder)]) == 2
    assert "G3 UNKNOWN: needs the surviving journal" in capsys.readouterr().out


def test_a_journal_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path, once())
    assert main(["check", "--journal", str(run.journal), "--max-attempts", "5"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "history.jsonl", "journal.jsonl", "final.json", "problems.json",
    }  # fmt: skip
    shown = capsys.readouterr().out
    assert "G12" in shown
    assert "G2 " not in shown


def test_problems_of_a_run_stay_when_it_is_checked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path, once())
    assert main(["check", str(tmp_path)]) == 0
    run.write_problems(["not healthy after it was healed"])
    assert main(["check", str(tmp_path)]) == 2
    assert "not healthy after it was healed" in capsys.readouterr().out
    run.problems.unlink()
    assert main(["check", str(tmp_path)]) == 2
    assert "the run was not brought to its end" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check"], "name a run's folder, or a journal"),
        (["check", "none"], "none/history.jsonl: No such file or directory"),
        (["check", "run", "--frob"], "No such option"),
        (["check", "run"], "history.jsonl line 2: JSON is malformed"),
    ],
)
def test_a_malformed_run_gets_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "run", once())
    lines = run.history.read_bytes().splitlines(keepends=True)
    run.history.write_bytes(b"".join([lines[0], b"{frob}\n", *lines[1:]]))
    assert main(arguments) == 3
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_bug_of_the_harness_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("chaos.cli.app.write_report", bug)
    assert main(["check", str(write_run(tmp_path, once()).folder)]) == 3
    assert "ZeroDivisionError: oh" in capsys.readouterr().err


def test_it_is_a_program(tmp_path: Path) -> None:
    write_run(tmp_path, once())
    ran = subprocess.run(
        [sys.executable, "-m", "chaos", "check", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_retired_name_works_and_reports_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "--help"]) == 0
    captured = capsys.readouterr()
    assert "chaos durability-matrix [OPTIONS]" in captured.out
    assert captured.err == "chaos: `sweep` is called `durability-matrix` now\n"
    assert main(["bugs", "--help"]) == 0
    assert "called `mutations` now" in capsys.readouterr().err
    assert main(["run", "master-killed", "--bug=none", "--cluster", "process"]) == 3
    captured = capsys.readouterr()
    assert "`--bug` is called `--mutation` now" in captured.err
    assert "no mutation is called 'none'" in captured.err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["run", "master-killed", "--workload", "nope"], "no workload is called 'nope'"),
        (["run", "master-killed", "--mutation", "nope"], "no mutation is called 'nope'"),
        (["run", "master-killed", "--duration", "nan"], "'--duration'"),
        (["run", "master-killed", "--duration", "-1"], "'--duration'"),
        (["run", "master-killed", "--rate", "-5"], "'--rate'"),
        (["run", "master-killed", "--rate", "inf"], "'--rate'"),
        (["run", "master-killed", "--seeds", "0"], "'--seeds'"),
        (["run", "master-killed", "--down-after-ms", "0"], "'--down-after-ms'"),
        (["smoke", "--rate", "0"], "'--rate'"),
        (["rolling", "--rate", "0"], "'--rate'"),
        (["durability-matrix", "--steps", "-1"], "'--steps'"),
        (["mutations", "--runs", "0"], "'--runs'"),
    ],
    ids=" ".join,
)
def test_a_value_out_of_bounds_is_named_before_anything_starts(
    arguments: list[str],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run of no seeds ended with status 0, and a name that is not known with a traceback."""
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 3
    written = capsys.readouterr().err
    assert problem in written
    assert "Traceback" not in written
    assert not [*tmp_path.iterdir()]


def test_a_measured_matrix_is_shown_with_the_path_of_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = StepResult("pause", "quorum", True, 0, 1, happened=True, acked=100, outage_s=1.0)
    (tmp_path / "steps.jsonl").write_bytes(msgspec.json.encode(step) + b"\n")
    options = ["--column", "quorum", "--steps", "1", "--folder", str(tmp_path)]
    assert main(["durability-matrix", "pause", *options]) == 0
    shown = capsys.readouterr().out
    path = shown.rpartition("table: ")[2].strip()
    assert "kept (100 in 1 steps)" in Path(path).read_text()
