"""The demo: its bill can fail, and it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ddq.client import TaskCounts
from ddq.demo.plan import ALWAYS, PlannedTask, make_plan
from ddq.demo.summary import Outcome, check
from ddq.demo.worker_pool import WorkerPool
from tests.cli.conftest import TIMEOUT_S, spawn

PLAN = [
    PlannedTask("fine", 1.0, 0.1, fails=0, cancelled=False),
    PlannedTask("flaky", 1.0, 0.1, fails=2, cancelled=False),
    PlannedTask("doomed", 1.0, 0.1, fails=ALWAYS, cancelled=False),
    PlannedTask("cancelled", 1.0, 0.1, fails=0, cancelled=True),
    PlannedTask("orphan", 1.0, 0.1, fails=0, cancelled=False),
]
COUNTS = TaskCounts(
    enqueued=5,
    scheduled=0,
    ready=0,
    leased=0,
    dead=1,
    succeeded=3,
    cancelled=1,
    purged=0,
    set_aside=0,
)
OUTCOME = Outcome(COUNTS, {"cancelled"}, {"fine", "flaky", "orphan"}, {"doomed"})


def pool(**changes: int) -> WorkerPool:
    made = WorkerPool("127.0.0.1:1")
    made.runs = Counter({"fine": 1, "flaky": 3, "doomed": 4, "orphan": 2, **changes})
    made.late_ms = [0.0, 3.0]
    made.orphans = {"orphan"}
    return made


def failing(outcome: Outcome, seen: WorkerPool) -> list[str]:
    return [line.claim for line in check(PLAN, outcome, seen) if not line.holds]


def test_a_good_run_adds_up() -> None:
    assert failing(OUTCOME, pool()) == []
    # Killed between the server's answer and its own report.
    assert failing(OUTCOME, pool(orphan=1)) == []


@pytest.mark.parametrize(
    ("outcome", "claim"),
    [
        (replace(OUTCOME, counts=replace(COUNTS, enqueued=6)), "every task has ended"),
        (replace(OUTCOME, counts=replace(COUNTS, leased=1, dead=0)), "every task has ended"),
        (replace(OUTCOME, succeeded={"fine", "flaky"}), "what should succeed has succeeded"),
        (replace(OUTCOME, dead=set()), "what always fails is dead"),
        (replace(OUTCOME, counts=replace(COUNTS, cancelled=0)), "what was cancelled never ran"),
    ],
)
def test_counts_of_the_server_that_disagree_fail_the_demo(outcome: Outcome, claim: str) -> None:
    assert claim in failing(outcome, pool())


def test_observations_of_the_workers_that_disagree_fail_the_demo() -> None:
    assert failing(OUTCOME, pool(cancelled=1)) == ["what was cancelled never ran"]
    again = ["no other task ran more often than it failed"]
    assert failing(OUTCOME, pool(fine=2)) == again
    early = pool()
    early.late_ms.append(-1.0)
    assert failing(OUTCOME, early) == ["nothing came early"]
    lost = ["the killed worker's tasks were run again"]
    assert lost[0] in failing(replace(OUTCOME, succeeded={"fine", "flaky"}), pool(orphan=1))
    none = pool()
    none.orphans = set()
    assert lost[0] in failing(OUTCOME, none)


def test_the_plan_is_the_same_each_time_and_has_all_kinds() -> None:
    plan = make_plan(400, seed=1)
    assert plan == make_plan(400, seed=1)
    assert {task.cancelled for task in plan} == {True, False}
    assert {min(task.fails, ALWAYS) for task in plan} == {0, 1, 2, ALWAYS}


def processes_of(folder: Path) -> list[str]:
    """The processes whose environment names this temporary folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                environ = (entry / "environ").read_bytes()
            except OSError:
                continue
            if os.fsencode(f"TMPDIR={folder}\0") in environ:
                found.append((entry / "cmdline").read_bytes().decode())
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder with a short name, as the store's socket wants it."""
    with tempfile.TemporaryDirectory(prefix="ddq-test-", dir="/tmp") as name:
        yield Path(name)


def test_it_adds_up_and_leaves_nothing_behind(folder: Path) -> None:
    demo = spawn("demo", env={**os.environ, "TMPDIR": str(folder)})
    out, err = demo.communicate(timeout=100)
    assert (demo.returncode, err) == (0, b""), out.decode()
    assert "It adds up." in out.decode()
    assert list(folder.iterdir()) == []
    assert processes_of(folder) == []


def test_ctrl_c_leaves_nothing_behind(folder: Path) -> None:
    demo = spawn("demo", env={**os.environ, "TMPDIR": str(folder)})
    assert demo.stdout is not None
    for line in demo.stdout:
        if b"succeeded" in line:
            break
    demo.send_signal(signal.SIGINT)
    _, err = demo.communicate(timeout=TIMEOUT_S)
    assert (demo.returncode, err) == (130, b"")
    assert list(folder.iterdir()) == []
    assert processes_of(folder) == []
