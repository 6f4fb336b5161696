"""Where the drivers of the peers are built, and with which tools."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.systems import Driver, MissingError
from tools.repo import ROOT

PEERS = ROOT / "tests" / "bench" / "peers"
BUILT = ROOT / ".tools" / "bench"
BUILD_TIMEOUT_S = 600


def require(program: str, remedy: str) -> str:
    """The path of a program.

    Raises:
        MissingError: it is not on the PATH.
    """
    found = shutil.which(program)
    if found is None:
        raise MissingError(f"{program} is not on the PATH", remedy)
    return found


def run(command: Sequence[str], folder: Path, remedy: str) -> None:
    """A step of a build.

    Raises:
        MissingError: it failed.
    """
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MissingError(f"{command[0]} did not end in {BUILD_TIMEOUT_S} s", remedy) from None
    if done.returncode:
        raise MissingError(f"{' '.join(command)}: {done.stderr.strip()[-300:]}", remedy)


def go_program(name: str) -> Path:
    """The program of the Go module peers/NAME; built again only where Go sees a change."""
    remedy = "install Go 1.24 or newer"
    go = require("go", remedy)
    BUILT.mkdir(parents=True, exist_ok=True)
    target = BUILT / name
    run([go, "build", "-mod=readonly", "-o", str(target), "."], PEERS / name, remedy)
    return target


def node_driver(name: str) -> Driver:
    """peers/NAME/driver.mjs with its packages installed."""
    remedy = "install Node.js 20 or newer with npm"
    node, npm = require("node", remedy), require("npm", remedy)
    folder = BUILT / name
    manifest = (PEERS / name / "package.json").read_text()
    if not _current(folder, manifest):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text(manifest)
        run([npm, "install", "--no-audit", "--no-fund", "--ignore-scripts"], folder, remedy)
        _mark(folder, manifest)
    # Node looks for packages beside the program.
    shutil.copy(PEERS / name / "driver.mjs", folder / "driver.mjs")
    return Driver([node, str(folder / "driver.mjs")])


def python_driver(module: str, *requirements: str) -> Driver:
    """tests.bench.peers.MODULE, in an environment of its own where it has requirements."""
    env = {"PYTHONPATH": str(ROOT)}
    if not requirements:
        return Driver([sys.executable, "-m", f"tests.bench.peers.{module}"], env)
    folder = BUILT / f"venv-{module}"
    wanted = "\n".join((sys.version, *requirements))
    if not _current(folder, wanted):
        remedy = f"pip install {' '.join(requirements)}"
        run([sys.executable, "-m", "venv", "--clear", str(folder)], ROOT, remedy)
        run([str(folder / "bin" / "pip"), "install", "--quiet", *requirements], ROOT, remedy)
        _mark(folder, wanted)
    return Driver([str(folder / "bin" / "python"), "-m", f"tests.bench.peers.{module}"], env)


def _digest(wanted: str) -> str:
    return hashlib.sha256(wanted.encode()).hexdigest()


def _current(folder: Path, wanted: str) -> bool:
    mark = folder / "built-from"
    return mark.is_file() and mark.read_text() == _digest(wanted)


def _mark(folder: Path, wanted: str) -> None:
    (folder / "built-from").write_text(_digest(wanted))
