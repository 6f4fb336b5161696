"""Check that the protos still serve the clients of the last release.

A field that is renumbered or a reason that is renamed shows in no test of ours, because our own
client changes with it.
"""

import subprocess
import sys
from pathlib import Path

from tools.repo import Repo, ToolError


def main() -> int:
    repo = Repo()
    try:
        released = repo.released()
    except ToolError as error:
        # A source archive has no history, so there is nothing to compare with and nothing to break.
        print(f"proto-breaking: nothing to compare with ({error})")
        return 0
    if not released:
        print("proto-breaking: nothing is released yet, so there is nothing to break")
        return 0
    buf = Path(sys.executable).parent / "buf"
    against = f".git#tag={released[-1].tag},subdir=proto"
    done = subprocess.run(
        [str(buf), "breaking", "proto", "--against", against], cwd=repo.root, check=False
    )
    if done.returncode != 0:
        print(
            f"proto-breaking: the protos break clients of {released[-1].tag} (see above): add "
            "instead of changing, or begin proto/ddq/v2",
            file=sys.stderr,
        )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
