"""Flame graphs of a server, a client and a worker of ddq under workloads of the benchmark.

    make profile
    make profile ARGS='--workloads drain --tasks 50000'

Needs py-spy, on the PATH or in .venv. The graphs are SVG files in artifacts/profile, one for each
process of a workload: WORKLOAD-enqueue.svg, WORKLOAD-work.svg and WORKLOAD-server.svg.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ddq.child import launched
from tests.bench import processes, runner
from tests.bench.peers.driver import parse
from tests.bench.systems import Driver
from tests.bench.systems.ddq import Backend, Ddq
from tests.bench.workloads import Sizes
from tests.bench.workloads.registry import WORKLOADS

REMEDY = "py-spy is missing; install it with: .venv/bin/python -m pip install py-spy"
SAMPLES_PER_S = 200
DURATION_MAX_S = 3_600
WRITE_LIMIT_S = 60.0
DEFAULT_WORKLOADS = ("single-50", "bulk-100", "drain")


class NoProfilerError(Exception):
    """py-spy is not installed; the message says how to install it."""


def profiler() -> str:
    """The path of py-spy.

    Raises:
        NoProfilerError: it is not installed.
    """
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.is_file() else shutil.which("py-spy")
    if found is None:
        raise NoProfilerError(REMEDY)
    return found


def record(output: str, *what: str) -> list[str]:
    """The command that samples a process into an SVG file."""
    return [
        profiler(), "record", "--output", output, "--rate", str(SAMPLES_PER_S),
        "--nonblocking", *what,
    ]  # fmt: skip


@dataclass
class Profiled(Ddq):
    """ddq with a profiler at its server and at its drivers.

    Attributes:
        prefix: of the SVG files.
    """

    prefix: str = ""

    def prepare(self) -> Driver:
        plain = super().prepare()
        command = [sys.executable, "-m", "tests.bench.profile", "--driver", self.prefix]
        return Driver(command, plain.env)

    @asynccontextmanager
    async def _serving(self, folder: Path, backend: Backend) -> AsyncIterator[tuple[str, int]]:
        async with super()._serving(folder, backend) as (address, pid):
            sampling = ("--subprocesses", "--pid", str(pid), "--duration", str(DURATION_MAX_S))
            sampler = await asyncio.create_subprocess_exec(
                *launched(record(f"{self.prefix}-server.svg", *sampling)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
            )
            try:
                yield address, pid
            finally:
                if sampler.returncode is None:
                    # It writes its file when it is interrupted.
                    sampler.send_signal(signal.SIGINT)
                    async with asyncio.timeout(WRITE_LIMIT_S):
                        await sampler.wait()
                await processes.end(sampler)


def drive(prefix: str, job: str) -> None:
    """Becomes the profiler of a driver; its file is named for what the driver does."""
    driver = [sys.executable, "-m", "tests.bench.peers.ddq", job]
    command = record(f"{prefix}-{parse(job).do}.svg", "--", *driver)
    os.execv(command[0], command)  # noqa: S606 - the profiler takes the place of this process


async def profile(options: argparse.Namespace) -> list[runner.Result]:
    """Runs each workload once."""
    out = options.out
    await asyncio.to_thread(out.mkdir, parents=True, exist_ok=True)
    cells = [
        (WORKLOADS[name], Profiled(name=f"ddq, {name}", prefix=f"{out}/{name}"))
        for name in options.workloads
    ]
    sizes = Sizes(tasks=options.tasks)
    with (out / "results.jsonl").open("w", encoding="utf-8") as output:
        done = await runner.run(cells, sizes, 1, output=output, log=sys.stderr)
    return done.results


def main() -> int:
    """The command line: 0 if every workload ran."""
    if sys.argv[1:2] == ["--driver"]:
        drive(*sys.argv[2:])
    parser = argparse.ArgumentParser(prog="profile", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--workloads", nargs="+", choices=sorted(WORKLOADS), default=DEFAULT_WORKLOADS,
        metavar="NAME",
    )  # fmt: skip
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=Path("artifacts/profile"), metavar="FOLDER")
    options = parser.parse_args()
    options.out = options.out.absolute()
    try:
        profiler()
    except NoProfilerError as error:
        sys.stderr.write(f"profile: {error}\n")
        return 1
    results = asyncio.run(profile(options))
    graphs = "".join(f"  {path}\n" for path in sorted(options.out.glob("*.svg")))
    sys.stdout.write(f"Flame graphs in {options.out}:\n{graphs}")
    return int(any(result.error for result in results))


if __name__ == "__main__":
    sys.exit(main())
