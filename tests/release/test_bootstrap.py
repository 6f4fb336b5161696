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


def test_an_old_python_is_told_which_one_is_needed() -> None:
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
    """A machine that has only what it is told; remembers what bootstrap tried on it."""

    def __init__(self, *has: str) -> None:
        self.has = set(has)
        self.tried: list[str] = []

    def run(self, command: list[str], *, quiet: bool = False) -> bool:
        line = " ".join(command)
        if quiet and "apt-get" not in line:
            return self.answers(line)
        self.tried.append(line)
        if "apt-get install" in line:
            if "lists" not in self.has or "apt" not in self.has:
                return False
            self.has.add("ensurepip")
            return True
        if "apt-get update" in line:
            self.has.add("lists")
            return "apt" in self.has
        if "--without-pip" in line:
            return True
        return "ensurepip" in self.has or " venv " not in line or "uv" in self.has

    def answers(self, question: str) -> bool:
        return any(
            (
                "ensurepip" in question and "ensurepip" in self.has,
                "import venv" in question,
                "--python" in question and "pip" in self.has,
                question.endswith("uv --version") and "uv" in self.has,
                "sudo" in question and "sudo" in self.has,
            )
        )

    def which(self, name: str) -> str | None:
        there = name in self.has or (name == "apt-get" and "apt" in self.has)
        return f"/usr/bin/{name}" if there else None


On = Callable[..., Machine]


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> On:
    def install(machine: Machine, user: int = 0) -> Machine:
        monkeypatch.setattr(bootstrap, "run", machine.run)
        monkeypatch.setattr("shutil.which", machine.which)
        monkeypatch.setattr("os.geteuid", lambda: user)
        monkeypatch.setattr(bootstrap, "VENV", tmp_path / "env")
        monkeypatch.setattr(bootstrap, "PYTHON", "py")
        return machine

    return install


def made(machine: Machine) -> list[str]:
    bootstrap.make_environment()
    return [line.replace(str(bootstrap.VENV), "ENV") for line in machine.tried]


def test_uv_comes_first(on: On) -> None:
    machine = on(Machine("uv", "ensurepip", "pip"))
    assert made(machine) == ["/usr/bin/uv venv --quiet --python py ENV"]


def test_then_venv(on: On) -> None:
    assert made(on(Machine("ensurepip", "pip"))) == ["py -m venv ENV"]


def test_then_the_machine_s_pip(on: On) -> None:
    assert made(on(Machine("pip", "apt"))) == ["py -m venv --without-pip ENV"]


def test_then_debian_s_package_and_the_lists_only_when_they_are_missing(
    on: On,
) -> None:
    with_lists = made(on(Machine("apt", "lists")))
    assert [line.split()[-1] for line in with_lists] == [bootstrap.debian_package(), "ENV"]
    without = made(on(Machine("apt")))
    assert ["update" in line for line in without] == [False, True, False, False]
    assert without[-1] == "py -m venv ENV"


@pytest.mark.parametrize(
    ("has", "user"), [((), 0), (("apt",), 1000), (("apt", "sudo"), 1000)], ids=str
)
def test_else_one_line_names_the_remedy(on: On, has: tuple[str, ...], user: int) -> None:
    machine = Machine(*has)
    if "sudo" in has:
        machine.has.discard("apt")  # there is a sudo, but nothing to install with
    on(machine, user)
    with pytest.raises(bootstrap.BootstrapError) as error:
        bootstrap.make_environment()
    assert "-venv" in str(error.value)
    assert "\n" not in str(error.value)


def test_it_does_nothing_when_nothing_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = bootstrap.STAMP.read_text()
    monkeypatch.setattr(bootstrap, "inputs", bootstrap.read_stamp)
    monkeypatch.setattr(bootstrap, "run", lambda *_, **__: pytest.fail("it ran something"))
    bootstrap.bootstrap(keep_python=False)
    assert bootstrap.STAMP.read_text() == before


def test_an_environment_that_was_moved_is_made_anew(on: On, tmp_path: Path) -> None:
    on(Machine())
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "python").touch()
    here = bootstrap.inputs()
    assert bootstrap.environment_is_usable(here, here)
    assert not bootstrap.environment_is_usable(here | {"place": "/elsewhere"}, here)


@pytest.mark.parametrize(("keep", "made"), [(True, 0), (False, 1)])
def test_a_python_that_was_chosen_once_stays_until_another_is_asked_for(
    keep: bool, made: int, on: On, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = on(Machine("ensurepip", "pip"))
    stamp = tmp_path / "env" / "bootstrap.json"
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "python").touch()
    stamp.write_text(json.dumps(bootstrap.inputs() | {"python": "another", "project": "old"}))
    monkeypatch.setattr(bootstrap, "STAMP", stamp)
    monkeypatch.setattr(bootstrap, "make_environment", lambda: machine.tried.append("made"))
    bootstrap.bootstrap(keep_python=keep)
    assert machine.tried.count("made") == made
    python = json.loads(stamp.read_text())["python"]
    assert (python == "another") is keep
