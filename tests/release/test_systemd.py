"""The systemd units: they start commands that there are, with settings that can be used."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from ddq.cli.app import app
from ddq.config import ProcessSettings, Settings, setting_names

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
HARDENED = (
    "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes",
    "CapabilityBoundingSet=", "RestrictSUIDSGID=yes", "SystemCallFilter=@system-service",
    "User=ddq", "UMask=0077",
)  # fmt: skip


def values(unit: Path, name: str) -> list[str]:
    """All values of one directive."""
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


def test_there_is_a_unit_for_each_process_that_stays() -> None:
    assert [unit.stem for unit in UNITS] == ["ddq-node", "ddq-scheduler", "ddq-server"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
class TestUnit:
    def test_its_commands_and_flags_exist(self, unit: Path) -> None:
        started = [*values(unit, "ExecStartPre"), *values(unit, "ExecStart")]
        assert started
        for line in started:
            program, *words = shlex.split(line)
            assert program == "/opt/ddq/bin/ddq"
            command = get_command(app)
            while words and not words[0].startswith("-"):
                command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
            known = {option for each in command.params for option in each.opts}
            assert {word for word in words if word.startswith("--")} <= known, line

    def test_it_is_hardened(self, unit: Path) -> None:
        assert [line for line in HARDENED if f"\n{line}" not in unit.read_text()] == []

    def test_a_graceful_stop_has_time(self, unit: Path) -> None:
        (text,) = values(unit, "TimeoutStopSec")
        assert int(text.removesuffix("s")) * 1_000 > Settings().drain_ms

    def test_no_secret_is_on_a_command_line(self, unit: Path) -> None:
        assert not re.search(
            r"^Exec.*(password|token|://)", unit.read_text(), re.MULTILINE | re.IGNORECASE
        )


@pytest.mark.parametrize("name", ["server", "scheduler"])
def test_the_settings_of_the_example_are_known(name: str) -> None:
    given = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    assert set(given) <= setting_names(Settings) | setting_names(ProcessSettings)
