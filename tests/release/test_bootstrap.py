"""Which way bootstrap takes to an environment, and what it says when there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import bootstrap
from tools.repo import ROOT


def test_an_old_python_is_refused_and_the_required_version_named() -> None:
    code = (
        "import sys; sys.version_info = (3, 8, 18); sys.argv = ['tools/bootstrap.py'];"
        "exec(open('tools/bootstrap.py').read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("ddq needs Python 3.11 or newer, but ")
    assert "is 3.8." in line
    assert "PYTHON=" in line


class Machine:
    """A machine that has only what it is given; remembers what bootstrap ran on it.

    Args:
        has: of "uv", "venv" and "network for uv", "network for pip".
    """

    def __init__(self, *has: str) -> None:
        self.has = set(has)
        self.ran: list[str] = []

    def run(self, command: list[str], *, quiet: bool = False) -> bool:
        line = " ".join(command)
        if quiet:
            return ("uv" if "uv --version" in line else "venv") in self.has
        line = line.replace(str(bootstrap.VENV), "ENV")
        self.ran.append(line)
        if "install" in line or "sync" in line:
            return f"network for {'uv' if '/uv ' in line else 'pip'}" in self.has
        return True

    def which(self, name: str) -> str | None:
        return f"/usr/bin/{name}" if name in self.has else None

    @property
    def steps(self) -> list[str]:
        """What was run, without options."""
        return [" ".join(line.split(" --")[0].split()[:4]) for line in self.ran]


On = Callable[..., Machine]


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> On:
    def install(machine: Machine) -> Machine:
        monkeypatch.setattr(bootstrap, "run", machine.run)
        monkeypatch.setattr("shutil.which", machine.which)
        monkeypatch.setattr(bootstrap, "VENV", tmp_path / "env")
        monkeypatch.setattr(bootstrap, "STAMP", tmp_path / "env" / "bootstrap.json")
        monkeypatch.setattr(bootstrap, "PYTHON", "py")
        (tmp_path / "env").mkdir()
        return machine

    return install


@pytest.fixture
def keep_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake machine makes no folder, so what there is stays for the stamp."""
    monkeypatch.setattr(bootstrap, "remove_environment", lambda: None)


def test_uv_comes_first_and_removes_what_the_lock_does_not_name(on: On, keep_folder: None) -> None:
    machine = on(Machine("uv", "venv", "network for uv", "network for pip"))
    bootstrap.bootstrap(keep_python=False)
    assert machine.steps == ["/usr/bin/uv venv", "/usr/bin/uv pip sync", "/usr/bin/uv pip install"]
    assert "--require-hashes" in machine.ran[1]
    assert bootstrap.read_stamp() == bootstrap.inputs()


def test_venv_and_pip_come_next(on: On, keep_folder: None) -> None:
    machine = on(Machine("venv", "network for pip"))
    bootstrap.bootstrap(keep_python=False)
    assert machine.steps == ["py -m venv ENV", *["ENV/bin/python -m pip install"] * 2]
    assert "--require-hashes" in machine.ran[1]


def test_pip_is_tried_where_uv_reaches_no_index(on: On, keep_folder: None) -> None:
    machine = on(Machine("uv", "venv", "network for pip"))
    bootstrap.bootstrap(keep_python=False)
    assert machine.steps[1:3] == ["/usr/bin/uv pip sync", "py -m venv ENV"]
    assert bootstrap.read_stamp() == bootstrap.inputs()


def test_a_lock_that_changes_during_an_installation_is_newer_than_the_stamp(
    on: On, keep_folder: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_ns = 1_700_000_000_000_000_000
    monkeypatch.setattr(bootstrap, "newest_input_ns", lambda: read_ns)
    on(Machine("venv", "network for pip"))
    bootstrap.bootstrap(keep_python=False)
    assert bootstrap.STAMP.stat().st_mtime_ns == read_ns


def test_a_failed_installation_names_the_network_and_leaves_no_stamp(on: On) -> None:
    on(Machine("uv", "venv"))
    with pytest.raises(bootstrap.BootstrapError, match="Check the network"):
        bootstrap.bootstrap(keep_python=False)
    assert not bootstrap.STAMP.exists()


def test_a_python_without_venv_gets_the_remedy_in_one_line_and_nothing_is_installed(on: On) -> None:
    machine = on(Machine())
    with pytest.raises(bootstrap.BootstrapError) as error:
        bootstrap.bootstrap(keep_python=False)
    assert f"install Debian's {bootstrap.debian_package()}" in str(error.value)
    assert "\n" not in str(error.value)
    assert not machine.ran


def test_it_does_nothing_when_nothing_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = bootstrap.STAMP.read_text()
    monkeypatch.setattr(bootstrap, "inputs", bootstrap.read_stamp)
    monkeypatch.setattr(bootstrap, "run", lambda *_, **__: pytest.fail("it ran something"))
    bootstrap.bootstrap(keep_python=False)
    assert bootstrap.STAMP.read_text() == before


def test_an_environment_that_was_moved_is_recreated(on: On, tmp_path: Path) -> None:
    on(Machine())
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "python").touch()
    here = bootstrap.inputs()
    assert bootstrap.environment_is_usable(here, here)
    assert not bootstrap.environment_is_usable(here | {"folder": "/elsewhere"}, here)


@pytest.mark.parametrize("keep", [True, False])
def test_a_python_that_was_chosen_once_stays_until_another_is_asked_for(
    keep: bool, on: On, keep_folder: None, tmp_path: Path
) -> None:
    machine = on(Machine("venv", "network for pip"))
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "python").touch()
    before = bootstrap.inputs() | {"python": "another", "project": "old"}
    bootstrap.STAMP.write_text(json.dumps(before))
    bootstrap.bootstrap(keep_python=keep)
    assert ("py -m venv ENV" in machine.steps) is not keep
    assert (bootstrap.read_stamp()["python"] == "another") is keep
