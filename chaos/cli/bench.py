"""How fast the judge is, and how fast the recorder: ``python -m chaos.cli.bench``.

A synthetic run is written, then judged by another process, so that its memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from chaos.checker.judge import judge
from chaos.history.operations import (
    RetrySettings,
    Settle,
)
from chaos.history.run_folder import Run
from chaos.history.synthetic import SyntheticHistory, write_run
from chaos.history.writer import HistoryWriter

WIDE = 8
"""Topics at a time."""

TASKS = 25
"""Of one topic: the specification copies its tasks at each step."""


def tell(number: int) -> SyntheticHistory:
    """Tasks with everything that happens to one: retries, cancels, repeats, lost replies."""
    topic = f"t{number}"
    synthetic = SyntheticHistory(topic, seed=number, policy=RetrySettings(5, 10, 100, 2.0, 0.1))
    # Topics follow each other in time, as the tasks of one long run do.
    synthetic.now_ns = number // WIDE * 10_000_000_000
    for task in range(TASKS):
        task_id = f"{topic}-{task:04}"
        synthetic.enqueue(task_id, delay_ms=20)
        if task % 5 == 0:
            synthetic.enqueue(task_id, delay_ms=20)
        if task % 5 == 1:
            synthetic.cancel(task_id)
        synthetic.wait(0.02)
        synthetic.promote()
        for lease in synthetic.retrieve():
            if task % 7 == 0:
                synthetic.nack(lease)
                synthetic.wait(0.02)
                synthetic.promote()
                lease = synthetic.lease()  # noqa: PLW2901 - the task's next one takes its place
            if task % 3 == 0:
                synthetic.extend(lease)
            if task % 11 == 0:
                synthetic.cancel(lease.id)
            synthetic.ack(lease, lost=task % 20 == 19)
            if task % 4 == 0:
                synthetic.ack(lease, process="v")
    return synthetic


def write(folder: Path, events: int) -> int:
    """A run with at least so many events. Returns how many it has."""
    histories: list[SyntheticHistory] = []
    count = 0
    while count < events:
        synthetic = tell(len(histories))
        for event in synthetic.events:
            event["process"] += f"-{len(histories) % WIDE}"
        count += len(synthetic.events)
        histories.append(synthetic)
    write_run(folder, *histories)
    return count


def judge_here(folder: Path) -> dict[str, float | str]:
    """Judges in this process, and measures."""
    started = time.perf_counter()
    results = judge(Run(folder)).results
    return {
        "seconds": time.perf_counter() - started,
        "events": results.events,
        "verdict": results.verdict,
        "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def record(folder: Path, operations: int) -> float:
    """Operations a second that a recorder writes down, two events each."""
    started = time.perf_counter()
    with HistoryWriter(folder / "recorded.jsonl") as writer:
        request = Settle("topic", "task", "00" * 16)
        for _ in range(operations):
            writer.event("1", "invoke", "ack", request=request)
            writer.event("1", "ok", "ack", reply={"revision": 1, "store_ms": 1})
    return operations / (time.perf_counter() - started)


def main() -> None:
    """Prints what it measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--judge", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.judge:
        print(json.dumps(judge_here(options.judge)))
        return
    with TemporaryDirectory() as name:
        folder = Path(name)
        print(f"recorder: {record(folder, 50_000):,.0f} operations/s")
        write(folder, options.events)
        command = [sys.executable, "-m", "chaos.cli.bench", "--judge", name]
        ran = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        figures = json.loads(ran.stdout)
    print(
        f"judge: {figures['events']:,} events in {figures['seconds']:.1f} s, "
        f"{figures['events'] / figures['seconds']:,.0f} events/s, {figures['MiB']:.0f} MiB, "
        f"{figures['verdict']}"
    )


if __name__ == "__main__":
    main()
