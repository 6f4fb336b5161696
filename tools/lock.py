"""Write `requirements.lock`: every package of the project and its tools, with hashes.

One file for all platforms and Python versions, in the form that plain pip installs with
`--require-hashes`. Versions that still satisfy `pyproject.toml` stay; `--upgrade` takes the newest.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    upgrade: bool = parser.parse_args().upgrade
    command = [
        str(Path(sys.executable).parent / "uv"),
        "pip",
        "compile",
        "--quiet",
        "--universal",
        "--python-version=3.11",  # the oldest that is supported
        "--generate-hashes",
        # Where packages come from is the installing machine's business, so the lock names no host.
        "--no-emit-index-url",
        "--no-emit-find-links",
        "--custom-compile-command=make lock",
        "--extra=dev",
        "--extra=otel",
        "--output-file=requirements.lock",
        *(["--upgrade"] if upgrade else []),
        "pyproject.toml",
    ]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
