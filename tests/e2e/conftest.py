"""ddq as its users run it: processes, a shell's view of them, and tools of other languages."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tools.repo import ROOT

DDQ = [sys.executable, "-c", "import sys; from ddq.cli import main; sys.exit(main())"]
TIMEOUT_S = 60
CODES = {
    0: "OK", 3: "INVALID_ARGUMENT", 5: "NOT_FOUND", 6: "ALREADY_EXISTS", 8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION", 10: "ABORTED",
}  # fmt: skip


class Dev:
    """`ddq dev` on a folder; start and kill it as often as you like."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = ""
        self.metrics = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self, *flags: str) -> None:
        """Returns when it answers."""
        self._process = subprocess.Popen(
            [*DDQ, "dev", "--data", str(self.folder), "--listen", "127.0.0.1:0", *flags],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip().startswith("address"):
                self.address = line.split()[1]
            if line.strip().startswith("metrics"):
                self.metrics = line.split("/")[2]
            if "Ready" in line:
                return
        raise AssertionError(f"ddq dev ended with status {self._process.wait()}")

    @property
    def pid(self) -> int:
        """Of ddq itself."""
        assert self._process is not None
        return self._process.pid

    @property
    def store_pid(self) -> int:
        """The process id of its store."""
        (pid,) = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(pid)

    def kill(self, pid: int) -> int:
        """SIGKILL for ddq or its store; returns ddq's status when both are gone."""
        assert self._process is not None
        store = os.pidfd_open(self.store_pid)
        try:
            os.kill(pid, signal.SIGKILL)
            status = self._process.wait(TIMEOUT_S)
            assert select.select([store], [], [], TIMEOUT_S)[0], "the store was left behind"
        finally:
            os.close(store)
        self._forget()
        return status

    def stop(self) -> int:
        """As Ctrl-C does; returns its status."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGINT)
        status = self._process.wait(TIMEOUT_S)
        self._forget()
        return status

    def _forget(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None


@pytest.fixture
def dev() -> Iterator[Dev]:
    """A server that answers, on a new folder."""
    with TemporaryDirectory(prefix="ddq-e2e-") as folder:
        running = Dev(Path(folder) / "data")
        running.start()
        try:
            yield running
        finally:
            running.stop()


def ddq(
    dev: Dev, *arguments: str, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Runs the command against the server and checks that it succeeded."""
    ran = subprocess.run(
        [*DDQ, *arguments],
        input=stdin,
        capture_output=True,
        timeout=3 * TIMEOUT_S,
        check=False,
        env=os.environ | {"DDQ_ADDRESS": dev.address},
    )
    assert ran.returncode == 0, ran.stderr.decode()
    return ran


@dataclass(frozen=True)
class Answer:
    """What grpcurl said.

    Attributes:
        code: name of the gRPC code.
        reply: the reply; empty after an error.
        reason: of the ErrorInfo.
        fields: of the BadRequest.
    """

    code: str
    reply: dict[str, Any]
    reason: str = ""
    fields: tuple[str, ...] = ()


class Grpcurl:
    """Calls RPCs with nothing but the server's reflection."""

    def __init__(self, program: str, address: str) -> None:
        self._program = program
        self._address = address

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """The program itself."""
        return subprocess.run(
            [self._program, "-plaintext", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def __call__(self, method: str, request: dict[str, Any]) -> Answer:
        service = "DelayQueueService"
        if method in {"CreateTopic", "PauseTopic", "GetTopicStats", "RedriveDeadTasks"}:
            service = "DelayQueueAdminService"
        ran = self.run(
            "-format-error", "-emit-defaults", "-d", "@", self._address,
            f"ddq.v1.{service}/{method}",
            stdin=json.dumps(request),
        )  # fmt: skip
        if ran.returncode == 0:
            return Answer("OK", json.loads(ran.stdout))
        try:
            error = json.loads(ran.stderr)
        except ValueError:
            raise AssertionError(ran.stderr) from None
        assert ran.returncode == 64 + error["code"]
        details = {
            detail["@type"].rpartition(".")[2]: detail for detail in error.get("details", [])
        }
        return Answer(
            CODES[error["code"]],
            {},
            details.get("ErrorInfo", {}).get("reason", ""),
            tuple(
                violation["field"]
                for violation in details.get("BadRequest", {}).get("field_violations", [])
            ),
        )


@pytest.fixture(scope="session")
def grpcurl_program() -> str:
    """The one that tools/go/go.mod pins."""
    ran = subprocess.run(
        [ROOT / "tools" / "gotool.sh", "grpcurl"], stdout=subprocess.PIPE, text=True, check=True
    )
    return ran.stdout.strip()


@pytest.fixture
def grpcurl(grpcurl_program: str, dev: Dev) -> Grpcurl:
    """grpcurl, and a server for it."""
    return Grpcurl(grpcurl_program, dev.address)


WEBHOOKS = "@octokit/webhooks-examples@7.6.1"


@pytest.fixture(scope="session")
def webhooks(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The real payloads of GitHub's webhooks, as npm has them."""
    npm = shutil.which("npm")
    assert npm is not None, "npm is needed: install Node, then run this again"
    folder = tmp_path_factory.mktemp("npm")
    subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", WEBHOOKS],
        cwd=folder,
        check=True,
        timeout=5 * TIMEOUT_S,
    )
    index = folder / "node_modules/@octokit/webhooks-examples/api.github.com/index.json"
    events: list[Any] = json.loads(index.read_text())
    return events
