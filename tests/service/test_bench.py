"""`make bench` in small: its processes start, its checks find what is not exact, it reports."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

from tests.bench import report, runner
from tests.bench.__main__ import arguments, bench, cells
from tests.bench.driving import Delivery, Exactness, exactness, percentile
from tests.bench.profile import NoProfilerError, profiler
from tests.bench.runner import Result, Run
from tests.bench.systems import Driver, MissingError
from tests.bench.systems.ddq import Ddq
from tests.bench.systems.registry import ALONE, PEERS
from tests.bench.workloads import Sizes, overload
from tests.bench.workloads.registry import WORKLOADS

TASKS = 200


@pytest.mark.parametrize(
    "system",
    [
        "ddq",
        pytest.param(
            "beanstalkd",
            marks=pytest.mark.skipif(not shutil.which("beanstalkd"), reason="needs beanstalkd"),
        ),
    ],
)
async def test_a_small_run_delivers_exactly_and_reports(system: str, tmp_path: Path) -> None:
    workloads = ["single-50", "bulk-100", "drain", "steady-500"]
    sizes = f"--quick --tasks {TASKS} --steady-s {TASKS / 500}".split()
    choice = ["--systems", system, "--workloads", *workloads, "--out", str(tmp_path)]
    done = await bench(arguments([*sizes, *choice]))
    assert [(each.error, each.flaws) for each in done.results] == [(None, {})] * len(done.results)
    measured = [name for name in workloads if WORKLOADS[name].suits(PEERS[system])]
    assert [each.workload for each in done.results] == measured
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["workload"] for line in lines] == measured
    text = (tmp_path / "report.md").read_text()
    assert text.count("| exact |") == len({"drain", "steady-500"} & {*measured})
    figures = {each.workload: each.figures for each in done.results}
    assert figures["single-50"]["pending_bytes"] > 0
    assert figures["drain"]["cpu_client_us"] > 0


def test_deliveries_that_are_not_exact_are_counted() -> None:
    found = [Delivery(0, 100, 99.5), Delivery(0, 100, 101.0), Delivery(1, 100, 98.0)]
    assert exactness(found, 3) == Exactness(missing=1, duplicated=1, early=1, foreign=0)
    assert exactness([Delivery(7, 0, 0.0)], 1) == Exactness(1, 0, 0, foreign=1)
    assert exactness([Delivery(0, 0, 0.0)], 1) == Exactness(0, 0, 0, 0)


def test_a_percentile_is_the_smallest_value_that_the_share_does_not_exceed() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.01, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def result(repetition: int, system: str, rate: float, **figures: float) -> Result:
    return Result(repetition, system, "drain", {"tasks_per_s": rate, "missing": 0, **figures})


def test_a_ratio_is_of_the_same_repetition_and_has_a_spread() -> None:
    run = Run(
        Sizes(),
        [
            *(result(n, "ddq", rate) for n, rate in enumerate((100.0, 300.0, 200.0), 1)),
            *(result(n, "asynq", rate) for n, rate in enumerate((50.0, 100.0, 200.0), 1)),
        ],
    )
    (ratio,) = report.ratios(run.results, WORKLOADS["drain"]).values()
    assert (ratio.low, ratio.middle, ratio.high) == (1.0, 2.0, 3.0)
    text = report.markdown(run, [WORKLOADS["drain"]])
    assert "| asynq | 100 (50 to 200) | 2 (1 to 3) | exact |" in text


def test_the_report_names_what_was_not_exact_what_failed_and_what_is_missing() -> None:
    failed = Result(2, "bullmq", "drain", error="a driver failed")
    run = Run(
        Sizes(),
        [result(1, "asynq", 5.0, early=3, duplicated=2), result(1, "bullmq", 5.0), failed],
        [runner.Missing("saq", "pip failed", "pip install saq")],
    )
    text = report.markdown(run, [WORKLOADS["drain"]])
    assert "| duplicated 2, early 3 |" in text
    assert "failed 1 of 2: a driver failed" in text
    assert "| saq | pip failed | `pip install saq` |" in text


class Absent(Ddq):
    def prepare(self) -> Driver:
        raise MissingError("the tool is not there", "install it")


async def test_a_system_without_its_tools_is_left_out_and_reported() -> None:
    output, log = io.StringIO(), io.StringIO()
    cell = (WORKLOADS["drain"], Absent("absent"))
    done = await runner.run([cell], Sizes(), 1, output=output, log=log)
    assert done.missing == [runner.Missing("absent", "the tool is not there", "install it")]
    assert (done.results, output.getvalue()) == ([], "")
    assert "absent: not measured" in log.getvalue()


def test_a_profile_without_py_spy_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(NoProfilerError, match=r"pip install py-spy"):
        profiler()
    found = tmp_path / "py-spy"
    found.touch(mode=0o755)
    assert profiler() == str(found)


def test_the_systems_of_a_workload_follow_each_other() -> None:
    names = [workload.name for workload, _ in cells(arguments([]))]
    assert names == sorted(names, key=names.index)
    assert {system.name for _, system in cells(arguments([]))} == {*PEERS}


def test_every_variant_and_every_workload_is_measured_by_bench_or_bench_alone() -> None:
    alone = cells(arguments(["--alone"]))
    assert {system.name for _, system in alone} == {"ddq", *ALONE}
    both = [*alone, *cells(arguments([]))]
    assert {workload.name for workload, _ in both} == {*WORKLOADS}
    assert all(workload.suits(system) for workload, system in alone)


async def test_an_overload_loses_nothing_and_its_refused_calls_had_no_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sustained(*_: object) -> float:
        return 100.0

    monkeypatch.setattr(overload, "_sustained", sustained)
    # The topic holds 20 tasks of the 300 that are due after a second.
    monkeypatch.setattr(overload, "BACKLOG_S", 0.2)
    monkeypatch.setattr(overload, "TIMEOUT_S", 0.3)
    choice = ["--alone", "--systems", "ddq", "--workloads", "overload-3-bounded", "--quick"]
    done = await bench(arguments([*choice, "--tasks", str(TASKS), "--out", str(tmp_path)]))
    (result,) = done.results
    assert (result.error, result.flaws) == (None, {})
    figures = result.figures
    assert figures["accepted_per_s"] > 0
    assert figures["refused_per_s"] > 0
    assert figures["offered_per_s"] == pytest.approx(
        figures["accepted_per_s"] + figures["refused_per_s"] + figures["unknown_per_s"]
    )
