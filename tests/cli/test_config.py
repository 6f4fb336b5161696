"""The configuration file and `ddq config`, from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import typer.main

from ddq.cli.app import app
from ddq.cli.exits import ExitCode
from ddq.config import ProcessSettings, Settings, setting_specs, variable
from tests.cli.conftest import Cli
from tests.cli.test_usage import PROCESSES, options  # noqa: F401 - a fixture

FILE = """
store = "redis://:secret@db/3"
listen = "127.0.0.1:7001"
metrics_listen = "127.0.0.1:7002"
scheduler = true
drain_ms = 77
fsync = true
node_sentinel_password = "hidden"
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    made = tmp_path / "ddq.toml"
    made.write_text(FILE)
    return str(made)


def _commands(command: Any, path: str = "ddq") -> Iterator[tuple[str, Any]]:
    for name, each in getattr(command, "commands", {}).items():
        yield from _commands(each, f"{path} {name}")
    yield path, command


COMMANDS = dict(_commands(typer.main.get_command(app)))
OPTIONS = [
    (path, option)
    for path, command in COMMANDS.items()
    for option in command.params
    if getattr(option, "envvar", None) and option.envvar != "DDQ_CONFIG"
]
ITS_OWN_DEFAULT = {
    ("ddq dev", "log_level"),
    ("ddq serve", "log_level"),
    ("ddq scheduler", "log_level"),
}


@pytest.mark.parametrize(
    ("path", "option"), OPTIONS, ids=lambda value: getattr(value, "name", value)
)
def test_every_option_with_a_variable_is_a_setting(path: str, option: Any) -> None:
    spec = setting_specs()[option.envvar.removeprefix("DDQ_").lower()]
    assert option.envvar == variable(spec.name)
    default = option.default
    default = str(default) if isinstance(default, Path | Enum) else default
    if not option.required and (path, spec.name) not in ITS_OWN_DEFAULT:
        assert default == spec.default, path


def test_every_setting_is_an_option_of_a_command() -> None:
    assert {option.envvar for _, option in OPTIONS} == set(map(variable, setting_specs()))


def test_every_command_with_settings_takes_a_file() -> None:
    for path in {path for path, _ in OPTIONS}:
        assert "DDQ_CONFIG" in {getattr(each, "envvar", None) for each in COMMANDS[path].params}


def test_a_server_takes_its_options_from_the_file(
    cli: Cli,
    file: str,
    options: list[Any],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cli.ok("serve", "--config", file)
    monkeypatch.setenv("DDQ_CONFIG", file)
    monkeypatch.setenv("DDQ_LISTEN", "127.0.0.1:7003")
    cli.ok("serve", "--drain-ms", "78", "--no-scheduler")
    first, second = options
    assert first.store_url == second.store_url == "redis://:secret@db/3"
    assert first.metrics_listen == second.metrics_listen == "127.0.0.1:7002"
    assert (first.listen, second.listen) == ("127.0.0.1:7001", "127.0.0.1:7003")
    assert (first.scheduler, second.scheduler) == (True, False)
    assert first.settings == Settings(drain_ms=77, fsync=True)
    assert second.settings == Settings(drain_ms=78, fsync=True)


def test_a_client_takes_the_address_from_the_file(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "ddq.toml"
    file.write_text('address = "127.0.0.1:1"\n')
    for command in (["stats"], ["enqueue", "t", "x"], ["work", "t", "--count", "1"]):
        ran = cli(*command, "--config", str(file), "--timeout", "1s")
        assert (ran.status, "127.0.0.1:1" in ran.err) == (ExitCode.UNAVAILABLE, True), ran


def test_a_node_takes_the_file_from_the_environment(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ddq.toml"
    file.write_text(f'node_data = "{tmp_path}"\nnode_announce = "here"\nnode_sentinels = "a:1"\n')
    monkeypatch.setenv("DDQ_CONFIG", str(file))
    ran = cli("node")
    assert (ran.status, ran.err) == (
        ExitCode.USAGE, "ddq: invalid address 'here'; expected IP:PORT\n",
    )  # fmt: skip


@pytest.mark.parametrize("command", [*PROCESSES, ["stats"], ["config", "show"]])
def test_a_file_that_cannot_be_used_is_refused_in_one_line(
    command: list[str], cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "ddq.toml"
    file.write_text("dran_ms = 1")
    ran = cli(*command, "--config", str(file))
    assert (ran.status, ran.err) == (
        ExitCode.USAGE, f"ddq: dran_ms in {file} is not a setting; did you mean drain_ms?\n",
    )  # fmt: skip


def test_show_says_where_each_value_comes_from_and_masks_secrets(
    cli: Cli, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDQ_STORE_TIMEOUT_MS", "99")
    text = cli.ok("config", "show", "--config", file).out
    document = cli.ok("config", "show", "--config", file, "--no-fsync", "--json").out
    for shown in (text, document):
        assert "secret" not in shown
        assert "hidden" not in shown
    assert ["drain_ms", "77", "file"] in [line.split() for line in text.splitlines()]
    found = json.loads(document)
    assert found.keys() == setting_specs().keys()
    assert found["drain_ms"] == {"value": 77, "source": "file"}
    assert found["fsync"] == {"value": False, "source": "flag"}
    assert found["store_timeout_ms"] == {"value": 99, "source": "environment"}
    assert found["durability"] == {"value": "quorum", "source": "default"}
    assert found["store"] == {"value": "redis://db:6379/3", "source": "file"}
    assert found["node_sentinel_password"] == {"value": "********", "source": "file"}


def test_a_store_that_cannot_be_read_is_masked_as_a_whole(cli: Cli) -> None:
    assert "secret" not in cli.ok("config", "show", "--store", "redi://:secret@db").out


def test_check(cli: Cli, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.ok("config", "check", "--config", file).out == "The configuration can be used.\n"
    monkeypatch.setenv("DDQ_DRIAN_MS", "5")
    ran = cli("config", "check", "--config", file, "--store", "ftp://db")
    assert ran.status == ExitCode.USAGE
    first, second = ran.err.splitlines()
    assert first.endswith(
        "DDQ_DRIAN_MS in the environment is not a setting; did you mean DDQ_DRAIN_MS?"
    )
    assert second.startswith("ddq: store: ")
    assert cli("config", "check", "--drain-ms", "0").status == ExitCode.USAGE


def test_the_table_of_the_process_is_for_no_setting_of_the_other() -> None:
    both = {each.name for each in fields(Settings)} & {
        each.name for each in fields(ProcessSettings)
    }
    assert not both
