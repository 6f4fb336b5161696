"""Flags before the environment, before the file, before defaults; and each refusal in one line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from ddq.config import (
    DAY_MS,
    Configuration,
    ConfigurationError,
    Origin,
    ProcessSettings,
    Settings,
    setting_specs,
    variable,
)
from ddq.configuration import check_settings, load, load_file, misspelled_variables


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in setting_specs():
        monkeypatch.delenv(variable(name), raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ddq.toml"


def _refusal(*given: Any) -> str:
    with pytest.raises(ConfigurationError) as refused:
        load(*given)
    return str(refused.value)


def test_without_any_source_each_setting_has_its_default() -> None:
    assert load() == Configuration(
        Settings(), ProcessSettings(), dict.fromkeys(setting_specs(), Origin.DEFAULT)
    )


def test_flags_count_before_the_environment_before_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(
        'drain_ms = 1\nstore_timeout_ms = 1\nleader_lease_ms = 1\nfsync = true\nlisten = "a:1"\n'
    )
    monkeypatch.setenv("DDQ_DRAIN_MS", "2")
    monkeypatch.setenv("DDQ_STORE_TIMEOUT_MS", "2")
    monkeypatch.setenv("DDQ_FSYNC", "off")
    monkeypatch.setenv("DDQ_LISTEN", "")
    loaded = load({"drain_ms": 3}, file)
    assert loaded.settings == Settings(
        drain_ms=3, store_timeout_ms=2, leader_lease_ms=1, fsync=False
    )
    assert loaded.process == ProcessSettings(listen="a:1"), "an empty variable is not set"
    reported = {name: loaded.origins[name] for name in ("drain_ms", "fsync", "leader_lease_ms")}
    assert reported == {
        "drain_ms": Origin.FLAG,
        "fsync": Origin.ENVIRONMENT,
        "leader_lease_ms": Origin.FILE,
    }
    assert loaded.origins["durability"] is Origin.DEFAULT
    assert (loaded.value("drain_ms"), loaded.value("listen")) == (3, "a:1")


NUMBERS = [spec for spec in setting_specs().values() if spec.metadata["least"] is not None]


@pytest.mark.parametrize("spec", NUMBERS, ids=lambda spec: spec.name)
def test_a_number_out_of_its_bounds_is_refused(spec: Any, file: Path) -> None:
    least, most = spec.metadata["least"], spec.metadata["most"]
    for wrong, remedy in ((least - 1, f"at least {least}"), (most + 1, f"at most {most}")):
        file.write_text(f"{spec.name} = {wrong}")
        assert _refusal({}, file) == (f"{spec.name} (in {file}) is {wrong}; it has to be {remedy}")
    if spec.name != "max_request_age_ms":
        assert load({spec.name: least}).value(spec.name) == least
        assert load({spec.name: most}).value(spec.name) == most


def test_every_number_has_bounds() -> None:
    numbers = [spec for spec in setting_specs().values() if type(spec.default) is int]
    assert numbers == NUMBERS


@pytest.mark.parametrize(
    ("line", "refusal"),
    [
        ('durability = "majority"', "is 'majority'; give one of fast, quorum, all"),
        ('log_level = "loud"', "is 'loud'; give one of debug, info, warning, error"),
        ('drain_ms = "soon"', "is 'soon'; it has to be a whole number"),
        ("drain_ms = 1.5", "is 1.5; it has to be a whole number"),
        ("drain_ms = []", "is []; it has to be a whole number"),
        ('fsync = "maybe"', "is 'maybe'; it has to be true or false"),
        ("fsync = []", "is []; it has to be true or false"),
        ("data_nodes = 3", "is 3; it has to be a text"),
        ('listen = "here"', "is 'here'; expected HOST:PORT"),
        ("node_sentinel_password = 7", "cannot be used; it has to be a text"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_file(
    line: str, refusal: str, file: Path
) -> None:
    file.write_text(line)
    name = line.partition(" ")[0]
    assert _refusal({}, file) == f"{name} (in {file}) {refusal}"
    with pytest.raises(ConfigurationError) as refused:
        load_file(file)
    assert str(refused.value) == f"{name} (in {file}) {refusal}"


def test_a_value_of_the_environment_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DDQ_DRAIN_MS", "soon")
    assert _refusal() == "drain_ms (DDQ_DRAIN_MS) is 'soon'; it has to be a whole number"
    assert load({"drain_ms": 5}).settings.drain_ms == 5, "it does not count"


def test_an_unknown_key_is_refused_with_the_nearest_name(file: Path) -> None:
    file.write_text("dran_ms = 1\n[node]\ndata = 'x'\n")
    assert _refusal({}, file) == (
        f"dran_ms in {file} is not a setting; did you mean drain_ms?; "
        f"node in {file} is not a setting; did you mean node_data?"
    )


def test_every_problem_has_a_line_of_its_own(file: Path) -> None:
    file.write_text("drain_ms = 0\nleader_lease_ms = 0\n")
    with pytest.raises(ConfigurationError) as refused:
        load({}, file)
    assert sorted(problem.partition(" ")[0] for problem in refused.value.problems) == [
        "drain_ms",
        "leader_lease_ms",
    ]


def test_a_file_that_cannot_be_read_is_refused(file: Path) -> None:
    assert _refusal({}, file) == f"cannot read {file}: No such file or directory"
    file.write_text("drain_ms 5")
    assert _refusal({}, file).startswith(f"{file} is not TOML: Expected '=' ")
    file.write_bytes(b"\xff")
    assert _refusal({}, file).startswith(f"{file} is not TOML: ")


def test_a_request_must_not_outlive_the_memory_of_it() -> None:
    with pytest.raises(ConfigurationError, match="exceeds the longest tombstone retention"):
        check_settings(Settings(max_request_age_ms=30 * DAY_MS))
    check_settings(Settings(max_request_age_ms=30 * DAY_MS - 2_000))


@pytest.mark.parametrize(
    "name", [spec.name for spec in fields(Settings) if type(spec.default) is int]
)
def test_settings_that_a_program_made_are_checked_too(name: str) -> None:
    least = setting_specs()[name].metadata["least"]
    changed: dict[str, Any] = {name: least - 1}
    with pytest.raises(
        ConfigurationError, match=f"^{name} is {least - 1}; it has to be at least {least}$"
    ):
        check_settings(replace(Settings(), **changed))


def test_checking_settings_does_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDQ_DRAIN_MS", "soon")
    check_settings(Settings())


def test_variables_that_look_misspelled_are_named() -> None:
    environment = {
        "DDQ_DRIAN_MS": "5",
        "DDQ_DRAIN_MS": "5",
        "DDQ_CONFIG": "x",
        "DDQ_TRACEBACK": "1",
        "DDQ_ATTEMPT": "1",
        "DDQ_SERVICE_HOST": "10.0.0.1",
        "DDQ_PORT_50051_TCP_ADDR": "10.0.0.1",
        "HOME": "/",
    }
    assert misspelled_variables(environment) == [
        "DDQ_DRIAN_MS in the environment is not a setting; did you mean DDQ_DRAIN_MS?"
    ]


def test_clients_do_not_load_what_reads_the_configuration() -> None:
    script = "import sys, ddq.cli, ddq.worker; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
