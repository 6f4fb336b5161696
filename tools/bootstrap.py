"""Make `.venv` from `requirements.lock`, on a machine that has only Python 3.11 or newer.

Standard library only, because it runs before anything is installed. `make` calls it before every
target; it does nothing when the environment already matches its inputs.

uv makes the environment where it is on the PATH and works, else Python's own venv and pip do. If
neither can, one line names the remedy: nothing is installed outside `.venv`.
"""

import sys

# Before every other import and in syntax that old versions can read: on Python 3.8 the user should
# read which version is needed, and not a SyntaxError.
if sys.version_info < (3, 11):  # noqa: UP036 - this line is there for the old versions
    sys.exit(
        "ddq needs Python 3.11 or newer, but {} is {}.{}. Run make again with "
        "PYTHON=/path/to/python3.11 (or newer).".format(sys.executable, *sys.version_info[:2])
    )

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
STAMP = VENV / "bootstrap.json"
# With the environment active, `python3` is the one inside it, which cannot recreate itself.
PYTHON = (
    getattr(sys, "_base_executable", sys.executable) if Path(sys.prefix) == VENV else sys.executable
)
# No build isolation: an isolated build would fetch its own, unlocked hatchling.
PROJECT = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]


class BootstrapError(Exception):
    """One line for the user: what is missing, and the remedy."""


def main(arguments: list[str]) -> int:
    keep_python = "--keep-python" in arguments
    # Two `make` at once (a test run beside a server) must not build the same environment twice.
    with (ROOT / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            bootstrap(keep_python=keep_python)
        except BootstrapError as error:
            print(f"bootstrap: {error}", file=sys.stderr)
            return 1
    return 0


def bootstrap(*, keep_python: bool) -> None:
    read_ns = newest_input_ns()
    wanted = inputs()
    have = read_stamp()
    if keep_python and "python" in have:
        wanted["python"] = have["python"]
    if have == wanted:
        date_stamp(read_ns)
        return
    keep = environment_is_usable(have, wanted)
    if not keep:
        say(f"making {VENV.name} with Python {sys.version.split()[0]}")
    say("installing the locked packages (about a minute the first time)")
    STAMP.unlink(missing_ok=True)  # a run that is interrupted below must not look finished
    if not any(way(keep=keep) for way in (with_uv, with_venv)):
        raise BootstrapError(
            "the packages could not be installed; the installer's message is above. "
            "Check the network and run the same command again."
        )
    STAMP.write_text(json.dumps(wanted if keep else inputs(), indent=2) + "\n")
    date_stamp(read_ns)


def newest_input_ns() -> int:
    """When the last of the files changed that make compares with the stamp."""
    files = (LOCK, ROOT / "pyproject.toml", ROOT / "ddq" / "__init__.py", Path(__file__))
    return max((file.stat().st_mtime_ns for file in files if file.exists()), default=0)


def date_stamp(at_ns: int) -> None:
    """As new as the inputs were when they were read, so that make asks again only for newer ones.

    With the time of the end, an input that changes during an installation would look older than
    the stamp, and its packages would never be installed.
    """
    os.utime(STAMP, ns=(at_ns, at_ns))


def with_uv(*, keep: bool) -> bool:
    """Whether uv is here, and made the environment or brought it up to date."""
    uv = shutil.which("uv")
    # Found is not enough: a version manager's shim is found, and fails when it is called.
    if uv is None or not run([uv, "--version"], quiet=True):
        return False
    if not keep:
        remove_environment()
    into = ["--quiet", "--python", str(venv_python())]
    return (
        (keep or run([uv, "venv", "--quiet", "--python", PYTHON, str(VENV)]))
        and run([uv, "pip", "sync", *into, "--require-hashes", str(LOCK)])
        and run([uv, "pip", "install", *into, *PROJECT])
    )


def with_venv(*, keep: bool) -> bool:
    """Whether Python's venv and pip made the environment or brought it up to date.

    Raises:
        BootstrapError: this Python has no venv that can install pip; Debian's has not by itself.
    """
    pip = [str(venv_python()), "-m", "pip"]
    if not (keep and run([*pip, "--version"], quiet=True)):
        if not run([PYTHON, "-c", "import ensurepip, venv"], quiet=True):
            raise BootstrapError(remedy())
        remove_environment()
        if not run([PYTHON, "-m", "venv", str(VENV)]):
            return False
    install = [*pip, "install", "--disable-pip-version-check", "--no-input", "--quiet"]
    return run([*install, "--require-hashes", "-r", str(LOCK)]) and run([*install, *PROJECT])


def remove_environment() -> None:
    """Removes the environment of another Python, or half of one."""
    shutil.rmtree(VENV, ignore_errors=True)


def inputs() -> dict[str, str]:
    """What the environment is made from; when one of these changes, it is brought up to date."""
    return {
        "folder": str(ROOT),  # programs in an environment name it by its full path
        "python": f"{os.path.realpath(PYTHON)} {sys.version}",
        "lock": digest(LOCK),
        "project": digest(ROOT / "pyproject.toml"),
        "version": package_version(),
    }


def digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BootstrapError(
            f"cannot read {path.name} ({error.strerror}); restore it with: git checkout {path.name}"
        ) from error


def package_version() -> str:
    """The installed metadata carries the version, so a new one means a new installation."""
    source = ROOT / "ddq" / "__init__.py"
    text = source.read_text() if source.is_file() else ""
    found = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if found is None:
        raise BootstrapError('ddq/__init__.py must hold a line like: __version__ = "0.1.0"')
    return found.group(1)


def read_stamp() -> dict[str, str]:
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def environment_is_usable(have: dict[str, str], wanted: dict[str, str]) -> bool:
    same = all(have.get(name) == wanted[name] for name in ("folder", "python"))
    return same and venv_python().exists()


def debian_package() -> str:
    """The package for this very Python: `python3-venv` serves only the distribution's default."""
    default = os.path.realpath("/usr/bin/python3")
    if os.path.realpath(PYTHON) == default:
        return "python3-venv"
    return f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"


def remedy() -> str:
    return (
        f"{PYTHON} cannot make a virtual environment; install Debian's {debian_package()} "
        "(as root: apt-get update && apt-get install python3-venv), or uv, and run the same "
        "command again."
    )


def venv_python() -> Path:
    return VENV / "bin" / "python"


def run(command: list[str], *, quiet: bool = False) -> bool:
    sink = subprocess.DEVNULL if quiet else None
    # The caller's choices for pip and uv (an index, a certificate) apply; these do not: an active
    # environment or a download of another Python would make something else than what was asked.
    environment = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONHOME"}}
    environment["UV_PYTHON_DOWNLOADS"] = "never"
    try:
        done = subprocess.run(command, stdout=sink, stderr=sink, env=environment, check=False)
    except OSError:
        return False
    return done.returncode == 0


def say(line: str) -> None:
    print(f"bootstrap: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
