"""Build the sdist and the wheel, install the wheel into an empty environment, and try it.

The tests run on the source tree, where every file is there; only this finds a file that was not
packed.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tools.repo import ROOT, Repo

DIST = ROOT / "dist"


def main() -> int:
    version = Repo().package_version()
    for old in DIST.glob("ddq-*"):
        old.unlink()
    # Without isolation the build uses the locked hatchling and fetches nothing.
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(DIST), str(ROOT)])
    wheel = DIST / f"ddq-{version}-py3-none-any.whl"
    if not wheel.exists():
        sys.exit(f"check-wheel: the build made no {wheel.name}; its output is above")
    if missing := sorted(wanted() - set(zipfile.ZipFile(wheel).namelist())):
        sys.exit(f"check-wheel: {wheel.name} lacks {', '.join(missing)}; see [tool.hatch.build]")
    with tempfile.TemporaryDirectory() as scratch:
        try_out(wheel, version, Path(scratch))
    print(f"check-wheel: {wheel.name} is complete, installs and starts")
    return 0


def wanted() -> set[str]:
    """Everything that ddq/ holds: code, the store's scripts, types and the typing marker."""
    files = [path for path in (ROOT / "ddq").rglob("*") if path.is_file()]
    return {str(p.relative_to(ROOT)) for p in files if "__pycache__" not in p.parts}


def try_out(wheel: Path, version: str, scratch: Path) -> None:
    environment = scratch / "env"
    python = str(environment / "bin" / "python")
    bin_dir = Path(sys.executable).parent
    uv = str(bin_dir / "uv")
    run([uv, "venv", "--quiet", "--python", sys.executable, str(environment)])
    # With the versions that were tested, and only those that a user gets: no tool may be needed.
    runtime = scratch / "runtime.txt"
    lock = str(ROOT / "requirements.lock")
    compiled = ["--constraints", lock, "--output-file", str(runtime), str(ROOT / "pyproject.toml")]
    run([uv, "pip", "compile", "--quiet", *compiled])
    run([uv, "pip", "install", "--quiet", "--python", python, "-r", str(runtime)])
    run([uv, "pip", "install", "--quiet", "--python", python, "--no-deps", str(wheel)])
    # Away from the source tree, else the tree would be imported instead of the wheel.
    said = subprocess.run(
        [python, "-c", "import ddq, ddq.client, ddq.worker; print(ddq.__version__)"],
        cwd=scratch,
        capture_output=True,
        text=True,
        check=False,
    )
    if said.stdout.strip() != version:
        sys.exit(f"check-wheel: the installed ddq does not import: {said.stderr.strip()}")
    run([str(environment / "bin" / "ddq"), "--help"], cwd=scratch, quiet=True)


def run(command: list[str], *, cwd: Path = ROOT, quiet: bool = False) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=quiet, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"check-wheel: failed: {' '.join(command)}\n{done.stderr or ''}".rstrip())


if __name__ == "__main__":
    sys.exit(main())
