from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ddq.cli import main

PROGRAM = [sys.executable, "-c", "import sys; from ddq.cli import main; sys.exit(main())"]
TIMEOUT_S = 60


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def documents(self) -> list[dict[str, Any]]:
        """Its output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


class Cli:
    """Runs ddq within this process; `spawn` runs it in its own."""

    def __init__(self, capture: pytest.CaptureFixture[str], address: str | None) -> None:
        self._capture = capture
        self.address = address

    def __call__(self, *arguments: str) -> Ran:
        self._capture.readouterr()
        status = main(list(arguments))
        out, err = self._capture.readouterr()
        return Ran(status, out, err)

    def ok(self, *arguments: str) -> Ran:
        """It has to succeed."""
        ran = self(*arguments)
        assert ran.status == 0, ran
        return ran


def spawn(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """ddq as a process of its own."""
    defaults: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*PROGRAM, *arguments], **{**defaults, **options})


@contextlib.contextmanager
def serving(
    folder: Path, listen: str = "127.0.0.1:0"
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`ddq dev`, and the address that it printed."""
    process = spawn("dev", "--data", str(folder), "--listen", "127.0.0.1:0")
    try:
        assert process.stdout is not None
        address = ""
        for line in process.stdout:
            word, _, rest = line.decode().strip().partition("  ")
            if word == "address":
                address = rest
            if word.startswith("Ready"):
                break
        else:
            assert process.stderr is not None
            raise AssertionError(process.stderr.read().decode())
        yield address, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT_S)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("DDQ_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def server_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("ddq") / "data") as (address, _):
        yield address


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    """Without a server."""
    return Cli(capfd, None)


@pytest.fixture
def live(
    capfd: pytest.CaptureFixture[str], server_address: str, monkeypatch: pytest.MonkeyPatch
) -> Cli:
    """With a server, found through DDQ_ADDRESS."""
    monkeypatch.setenv("DDQ_ADDRESS", server_address)
    return Cli(capfd, server_address)


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A topic of this test's own."""
    return "".join(c if c.isalnum() else "-" for c in request.node.name)[:128]
