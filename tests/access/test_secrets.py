"""Secrets show up nowhere: logs, errors, process titles, help, and what a crash prints."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ddq.access import Guard
from ddq.client import Access
from ddq.store.topology import StoreUrlError, parse_store_url
from tests.cli.conftest import PROGRAM, TIMEOUT_S, spawn
from tests.support.access import AccessFile

PASSWORD = "hunter2-of-the-store"
SENTINEL_PASSWORD = "hunter3-of-the-sentinels"
TOKEN = "ddq_abcdefgh_hunter4-of-the-client"
SECRETS = (PASSWORD, SENTINEL_PASSWORD, "hunter4-of-the-client")
ENVIRONMENT = {
    "DDQ_STORE": f"redis://ddq:{PASSWORD}@127.0.0.1:1/0",
    "DDQ_NODE_SENTINEL_PASSWORD": SENTINEL_PASSWORD,
    "DDQ_TOKEN": TOKEN,
    "COLUMNS": "300",
}


def assert_no_secret(text: str | bytes) -> None:
    shown = text.decode(errors="replace") if isinstance(text, bytes) else text
    for secret in SECRETS:
        assert secret not in shown


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        env=os.environ | ENVIRONMENT | environment,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.mark.parametrize("command", ["serve", "scheduler", "node", "work", "token create", ""])
def test_help_does_not_show_values_of_the_environment(command: str) -> None:
    ran = run(*command.split(), "--help")
    assert ran.returncode == 0
    assert_no_secret(ran.stdout + ran.stderr)


@pytest.mark.parametrize(
    ("arguments", "store"),
    [
        (("serve", "--store-wait-ms", "1"), ENVIRONMENT["DDQ_STORE"]),
        (("scheduler", "--store-wait-ms", "1", "--log-level", "debug"), ENVIRONMENT["DDQ_STORE"]),
        (("serve", "--processes", "2", "--store-wait-ms", "1"), ENVIRONMENT["DDQ_STORE"]),
        (("serve",), f"redis://ddq:{PASSWORD}@127.0.0.1:1/0?nonsense=1"),
        (("serve",), f"redis://ddq:{PASSWORD}/x@127.0.0.1:1/0"),
        (("serve",), f"http://ddq:{PASSWORD}@127.0.0.1"),
        (
            ("serve", "--store-wait-ms", "1"),
            f"sentinel://:{PASSWORD}@127.0.0.1:1/m?sentinel_password={SENTINEL_PASSWORD}",
        ),
        (("store", "check", "--store-wait-ms", "1"), ENVIRONMENT["DDQ_STORE"]),
        (("config", "show"), ENVIRONMENT["DDQ_STORE"]),
        (("stats", "--address", "127.0.0.1:1"), ENVIRONMENT["DDQ_STORE"]),
        (("stats", "--address", "10.0.0.1:1"), ENVIRONMENT["DDQ_STORE"]),
    ],
)
def test_errors_do_not_show_secrets(arguments: tuple[str, ...], store: str) -> None:
    ran = run(*arguments, DDQ_STORE=store)
    assert ran.stdout + ran.stderr
    assert_no_secret(ran.stdout + ran.stderr)


def children_of(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [each for child in map(int, found) for each in (child, *children_of(child))]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_titles_logs_and_crashes_of_running_processes_do_not_show_secrets(tmp_path: Path) -> None:
    access = AccessFile(tmp_path)
    secret = access.token("*:all").split("_", 2)[2]
    process = spawn(
        "serve", "--processes", "2", "--log-level", "debug", "--store-wait-ms", "60000",
        "--access-file", str(access.path), "--listen", "127.0.0.1:0",
        env=os.environ | ENVIRONMENT | {"PYTHONFAULTHANDLER": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    said: list[bytes] = []
    try:
        # The first child has read its options, and waits for a store that is not there.
        while not any(b"waiting for the store" in line for line in said):
            said.append(process.stderr.readline())
        pids = [process.pid, *children_of(process.pid)]
        assert len(pids) >= 2
        for pid in pids:
            assert_no_secret(Path(f"/proc/{pid}/cmdline").read_bytes())
            assert_no_secret(Path(f"/proc/{pid}/comm").read_bytes())
        for pid in pids[1:]:
            # faulthandler prints the stack of each thread.
            os.kill(pid, signal.SIGABRT)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert b"Fatal Python error" in b"".join(said) + err
    assert_no_secret(b"".join(said) + out + err)
    assert secret.encode() not in b"".join(said) + out + err


def test_values_do_not_show_their_secrets(tmp_path: Path) -> None:
    access = AccessFile(tmp_path)
    token = access.token("*:all")
    guard = Guard(access.path)
    url = parse_store_url(f"sentinel://u:{PASSWORD}@h:1/m?sentinel_password={SENTINEL_PASSWORD}")
    assert_no_secret(repr(url) + str(url))
    assert_no_secret(repr(Access(token=TOKEN)))
    assert token.split("_", 2)[2] not in repr(guard) + repr(guard._entries)
    with pytest.raises(StoreUrlError) as refused:
        parse_store_url(f"redis://u:{PASSWORD}@h:port/0")
    assert_no_secret(str(refused.value))


def test_an_exception_that_is_not_expected_prints_no_values() -> None:
    """Typer could print the local variables of each frame, the token among them."""
    code = (
        "import sys, ddq.client.access as a, ddq.cli.connect\n"
        "def fail(*_a, **_k): raise ZeroDivisionError\n"
        "ddq.cli.connect.Client = fail\n"
        "from ddq.cli import main\n"
        "sys.exit(main(['stats', '--address', '127.0.0.1:1']))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | ENVIRONMENT, capture_output=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert b"ZeroDivisionError" in ran.stderr
    assert_no_secret(ran.stdout + ran.stderr)
