"""Measures ddq and other queues side by side, on the same kind of store.

    make bench                                   all systems and workloads, three repetitions
    make bench-quick                             a short look, under three minutes
    make bench ARGS='--systems ddq asynq --workloads drain'
    make bench ARGS='--list'

A system whose tools are not installed is left out; the report says what was missing. Results are
written to artifacts/bench: results.jsonl, report.md and, where matplotlib is installed (with `pip
install 'ddq[bench]'`), plots.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench import report, runner
from tests.bench.systems import System
from tests.bench.systems.registry import ALONE, PEERS
from tests.bench.workloads import Sizes, Workload
from tests.bench.workloads.registry import ALONE as ALONE_CELLS
from tests.bench.workloads.registry import WORKLOADS

QUICK = Sizes(
    tasks=2_000, memory_tasks=2_000, steady_s=3.0, steady_delay_ms=(500, 1_500), overload_s=1.0
)
QUICK_SYSTEMS = ("ddq", "beanstalkd", "asynq", "bullmq")
COMPARED = tuple(name for name, workload in WORKLOADS.items() if not workload.alone)
QUICK_WORKLOADS = ("single-50", "bulk-100", "drain", "steady-500")


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--systems", nargs="+", choices=sorted({*PEERS, *ALONE}), metavar="NAME")
    parser.add_argument("--workloads", nargs="+", choices=sorted(WORKLOADS), metavar="NAME")
    parser.add_argument("--alone", action="store_true", help="ddq and its variants, without peers")
    parser.add_argument("--quick", action="store_true", help="few systems and tasks")
    parser.add_argument("--tasks", type=int, help="tasks of an enqueue or a drain")
    parser.add_argument("--steady-s", type=float, help="seconds of a steady load")
    parser.add_argument("--overload-s", type=float, help="seconds of an overload")
    parser.add_argument("--repetitions", type=int, help="3, or 1 with --quick")
    parser.add_argument("--out", type=Path, default=Path("artifacts/bench"), metavar="FOLDER")
    parser.add_argument("--list", action="store_true", help="list systems and workloads")
    return parser.parse_args(given)


def chosen_sizes(options: argparse.Namespace) -> Sizes:
    """The sizes of the options."""
    sizes = QUICK if options.quick else Sizes()
    tasks = options.tasks or sizes.tasks
    return Sizes(
        tasks=tasks,
        memory_tasks=min(sizes.memory_tasks, tasks),
        steady_s=options.steady_s or sizes.steady_s,
        steady_delay_ms=sizes.steady_delay_ms,
        overload_s=options.overload_s or sizes.overload_s,
    )


def cells(options: argparse.Namespace) -> list[tuple[Workload, System]]:
    """What is measured, in order: the systems of a workload follow each other."""
    known = {**PEERS, **ALONE}
    if options.systems or options.workloads or not options.alone:
        names = options.systems or (QUICK_SYSTEMS if options.quick else [*PEERS])
        workloads = options.workloads or (QUICK_WORKLOADS if options.quick else COMPARED)
        chosen = [(workload, names) for workload in workloads]
    else:
        chosen = [*ALONE_CELLS]
    return [(WORKLOADS[workload], known[name]) for workload, names in chosen for name in names]


async def bench(options: argparse.Namespace) -> runner.Run:
    """Measures, and writes the results into the folder of the options."""
    out: Path = options.out
    await asyncio.to_thread(out.mkdir, parents=True, exist_ok=True)
    wanted = cells(options)
    repetitions = options.repetitions or (1 if options.quick else 3)
    with (out / "results.jsonl").open("w", encoding="utf-8") as output:
        done = await runner.run(
            wanted, chosen_sizes(options), repetitions, output=output, log=sys.stderr
        )
    workloads = [*dict.fromkeys(workload.name for workload, _ in wanted)]
    text = report.markdown(done, [WORKLOADS[name] for name in workloads])
    await asyncio.to_thread((out / "report.md").write_text, text, encoding="utf-8")
    sys.stdout.write(text)
    return done


def main() -> int:
    """The command line: 0 if every measurement has figures."""
    options = arguments()
    if options.list:
        lines = [f"  {name}" for name in (*PEERS, *ALONE)]
        lines += [f"  {name:<16} {each.title}" for name, each in WORKLOADS.items()]
        sys.stdout.write("\n".join(lines) + "\n")
        return 0
    done = asyncio.run(bench(options))
    from tests.bench import plots

    sys.stdout.write(plots.draw(done, options.out) + "\n")
    return int(any(result.error for result in done.results))


if __name__ == "__main__":
    sys.exit(main())
