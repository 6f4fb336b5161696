"""What goes wrong before anything is asked of a server: one line, and an exit status."""

from __future__ import annotations

import asyncio
import io
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import ddq.cli
import ddq.scheduler.process
import ddq.server
from ddq import __version__, errors
from ddq.cli import main
from ddq.cli.exits import MEANINGS, ExitCode, exit_code, one_line
from ddq.config import Settings
from ddq.scheduler.process import SchedulerInfo, SchedulerOptions
from ddq.server import ServerInfo, ServerOptions
from tests.cli.conftest import TIMEOUT_S, Cli, spawn

NO_SERVER = ("--address", "127.0.0.1:1")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["nope"], 2, "nope"),
        (["--nope"], 2, "--nope"),
        (["enqueue"], 2, "topic"),
        (["enqueue", "mail"], 2, "give a payload"),
        (["enqueue", "mail", "x", "--file", "y"], 2, "not both"),
        (["enqueue", "mail", "--file", "/nonexistent", *NO_SERVER], 5, "cannot connect"),
        (["enqueue", "mail", "x", "--delay", "90"], 2, "invalid duration '90'"),
        (["enqueue", "mail", "x", "--at", "soon"], 2, "invalid time 'soon'"),
        (["enqueue", "mail", "x", "--delay", "1s", "--at", "2030-01-01"], 2, "not both"),
        (["enqueue", "mail", "x", "--skip-blank-lines"], 2, "--lines"),
        (["enqueue", "mail", "x", "--header", "a"], 2, "KEY=VALUE"),
        (["enqueue", "mail", "x", "-H", "a=1", "-H", "a=2"], 2, "twice"),
        (["enqueue", "mail", "--file", "a", "--file", "b", "--id", "c"], 2, "--id-prefix"),
        (["enqueue", "mail", "x", "--on-conflict", "bad"], 2, "return-existing"),
        (["enqueue", "mail", "x", "--address", "localhost"], 2, "HOST:PORT"),
        (["enqueue", "mail", "x", "--address", "localhost:http"], 2, "HOST:PORT"),
        (["enqueue", "mail", "x", "--address", "localhost:70000"], 2, "HOST:PORT"),
        (["enqueue", "mail", "x", *NO_SERVER], 5, "cannot connect to 127.0.0.1:1"),
        (["reschedule", "mail", "x", "--delay", "1s", "--at", "2030-01-01"], 2, "not both"),
        (["work"], 2, "TOPIC"),
        (["work", "mail", "--exec", "/nonexistent"], 2, "cannot run"),
        (["work", "mail", "--exec", "'"], 2, "quotation"),
        (["work", "mail", "--exec", ""], 2, "empty"),
        (["work", "mail", "--exec", "cat", "--", "cat"], 2, "not both"),
        (["work", "mail", "--raw", "--json"], 2, "--raw"),
        (["work", "mail", "--count", "0"], 2, "--count"),
        (["work", "mail", "--max-run", "0s"], 2, "--max-run"),
        (["work", "mail", *NO_SERVER], 5, "cannot connect"),
        (["stats", *NO_SERVER], 5, "cannot connect"),
        (
            ["node", "--data", "x", "--announce", "a:1", "--sentinels", "b:1"],
            2,
            "not an IP address",
        ),
        (["node", "--data", "x", "--announce", "10.0.0.1", "--sentinels", "b:1"], 2, "IP:PORT"),
        (["node", "--data", "x", "--announce", "10.0.0.1:1", "--sentinels", "b"], 2, "HOST:PORT"),
        (["node", "--data", "x", "--announce", "10.0.0.1:1", "--sentinels", "b:1,b:1"], 2, "twice"),
        (["topics"], 2, "command"),
        (["topics", "update", "mail"], 2, "a setting"),
        (["dead", "redrive", "mail"], 2, "--all"),
        (["dead", "redrive", "mail", "a", "--all"], 2, "--all"),
        (["dead", "delete", "mail", "a"], 2, "--yes"),
        (["serve"], 2, "--store"),
        (["serve", "--store", "foo://bar"], 5, "foo://bar"),
        (
            ["serve", "--store", "redis://127.0.0.1:1/0", "--store-wait-ms", "1"],
            5,
            "Connect call failed",
        ),
        (["dev", "--listen", "nowhere"], 2, "HOST:PORT"),
        (["dev", "--drain-ms", "0"], 2, "drain_ms is 0"),
        (["dev", "--drain-ms", "soon"], 2, "--drain-ms"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], status: int, says: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    ran = cli(*arguments)
    assert (ran.status, ran.out) == (status, "")
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("ddq: ")
    assert says in ran.err


def test_bad_environment_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDQ_ADDRESS", "nowhere")
    ran = cli("stats")
    assert ran.status == 2
    assert "DDQ_ADDRESS" in ran.err
    monkeypatch.setenv("DDQ_STORE_TIMEOUT_MS", "long")
    ran = cli("dev")
    assert ran.status == 2
    assert "DDQ_STORE_TIMEOUT_MS" in ran.err


def test_a_folder_that_cannot_be_used_is_one_line(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    ran = cli("dev", "--data", str(file), "--listen", "127.0.0.1:0")
    assert ran.status == 5
    assert ran.err.count("\n") == 1
    assert str(file) in ran.err


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        # In a process of its own: gRPC's log lines are switched off before it is loaded.
        process = spawn("dev", "--data", str(tmp_path / "data"), "--listen", address)
        _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 5
    assert err.count(b"\n") == 1
    assert address.encode() in err


def test_every_error_has_a_status() -> None:
    classes = [kind for kind in errors.all_errors() if kind.__module__ == "ddq.errors"]
    found = {kind.__name__: exit_code(kind("x")) for kind in classes}
    left = {name for name, code in found.items() if code is ExitCode.FAILED}
    assert left == {"DdqError", "StoreMalformed", "Unimplemented"}
    assert found["OutcomeUnknown"] is ExitCode.UNKNOWN
    assert found["TaskNotFound"] is ExitCode.NOT_FOUND
    assert found["LeaseLost"] is ExitCode.CONFLICT
    assert found["StoreFull"] is ExitCode.FULL
    assert found["TransportError"] is ExitCode.UNAVAILABLE


def test_every_status_is_documented(cli: Cli) -> None:
    assert set(MEANINGS) == set(ExitCode)
    shown = " ".join(cli.ok("--help").out.split())
    for code, meaning in MEANINGS.items():
        assert f"{code.value} {meaning}" in shown


def test_lines_stay_lines() -> None:
    assert one_line("a\nb\x1b[31m\tc\u202ed") == "a b [31m c d"


def test_a_bug_is_one_line_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(ddq.cli, "get_command", broken)
    ran = cli("stats")
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert "ZeroDivisionError: by zero" in ran.err
    monkeypatch.setenv("DDQ_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        main(["stats"])


def test_version(cli: Cli) -> None:
    assert cli.ok("--version").out == f"ddq {__version__}\n"


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the server or scheduler would have been started with."""
    seen: list[Any] = []

    async def run_server(
        given: ServerOptions, *, stop: asyncio.Event, on_ready: Callable[[ServerInfo], None]
    ) -> None:
        seen.append(given)
        on_ready(ServerInfo(given.listen, given.store_url))

    async def run_scheduler(
        given: SchedulerOptions, *, stop: asyncio.Event, on_ready: Callable[[SchedulerInfo], None]
    ) -> None:
        seen.append(given)
        on_ready(SchedulerInfo(given.store_url))

    monkeypatch.setattr(ddq.server, "run_server", run_server)
    monkeypatch.setattr(ddq.scheduler.process, "run_scheduler", run_scheduler)
    return seen


def _other_value(name: str, default: object, number: int) -> int | str:
    """One that is not the default."""
    texts = {"durability": "all", "data_nodes": "h1:1,h2:2", "store_address_map": "h1:1=h2:2"}
    return texts.get(name, f"text-{number}") if isinstance(default, str) else number


PROCESSES = [
    ["dev"], ["serve", "--store", "unix:///tmp/s"], ["scheduler", "--store", "unix:///tmp/s"],
]  # fmt: skip


@pytest.mark.parametrize("command", PROCESSES)
def test_every_setting_is_a_flag(command: list[str], cli: Cli, options: list[Any]) -> None:
    flags: list[str] = []
    wanted: dict[str, Any] = {}
    for number, spec in enumerate(fields(Settings), start=1_000):
        dashed = spec.name.replace("_", "-")
        if isinstance(spec.default, bool):
            flags.append(f"--no-{dashed}" if spec.default else f"--{dashed}")
            wanted[spec.name] = not spec.default
        else:
            wanted[spec.name] = _other_value(spec.name, spec.default, number)
            flags += [f"--{dashed}", str(wanted[spec.name])]
    cli.ok(*command, *flags)
    assert options[0].settings == Settings(**wanted)


@pytest.mark.parametrize("command", PROCESSES)
def test_every_setting_is_in_the_environment(
    command: list[str], cli: Cli, options: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: dict[str, Any] = {}
    for number, spec in enumerate(fields(Settings), start=1_000):
        switch = isinstance(spec.default, bool)
        value = not spec.default if switch else _other_value(spec.name, spec.default, number)
        monkeypatch.setenv(f"DDQ_{spec.name.upper()}", str(value).lower())
        wanted[spec.name] = value
    cli.ok(*command)
    assert options[0].settings == Settings(**wanted)


def test_defaults_are_those_of_the_settings(cli: Cli, options: list[Any]) -> None:
    out = cli.ok("dev").out
    assert options == [
        ServerOptions("127.0.0.1:50051", "embedded:ddq-data", scheduler=True, settings=Settings())
    ]
    assert "enqueue hello 'hello, world' --delay 5s\n" in out


@pytest.mark.parametrize("command", PROCESSES)
def test_metrics_are_shown_where_it_is_asked_for(
    command: list[str], cli: Cli, options: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.ok(*command)
    cli.ok(*command, "--metrics-listen", "127.0.0.1:0")
    monkeypatch.setenv("DDQ_METRICS_LISTEN", "[::]:9")
    cli.ok(*command)
    assert [given.metrics_listen for given in options] == [None, "127.0.0.1:0", "[::]:9"]
    refused = cli(*command, "--metrics-listen", "here")
    assert (refused.status, "HOST:PORT" in refused.err) == (ExitCode.USAGE, True)


def test_serve_passes_its_flags_and_the_environment_on(
    cli: Cli, options: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDQ_STORE", "redis://db/3")
    cli.ok("serve", "--listen", "[::1]:0")
    cli.ok("serve", "--no-scheduler")
    cli.ok("serve", "--scheduler")
    assert options[0].store_url == "redis://db/3"
    assert options[0].listen == "[::1]:0"
    assert [given.scheduler for given in options] == [None, False, True]


def test_a_next_step_names_the_address(cli: Cli, options: list[Any]) -> None:
    out = cli.ok("dev", "--listen", "127.0.0.1:7000").out
    assert "--delay 5s --address 127.0.0.1:7000\n" in out


def test_talking_to_a_server_loads_none() -> None:
    script = "import sys, ddq.cli; sys.exit('ddq.server' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
