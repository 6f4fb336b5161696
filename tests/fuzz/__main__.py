"""Hostile clients against a server: random bytes, mutated messages, broken HTTP/2, slow clients.

    make fuzz
    make fuzz ARGS='--requests 50000 --seed 7'

The server, its store and all clients are on the loopback of this machine. A healthy client works
beside the attack; what was acknowledged to it has to be delivered. Exit status 1: something should
not have happened; the folder has the server's log.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import time
from pathlib import Path

from tests.fuzz.run import run

REQUESTS = 1_000_000


def main() -> int:
    """Runs it once."""
    parser = argparse.ArgumentParser("make fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=REQUESTS, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all that is sent")
    parser.add_argument("--connections", type=int, default=16, help="at once (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("artifacts/fuzz"), help="folder")
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    report = asyncio.run(
        run(
            options.out, options.requests, options.seed,
            connections=options.connections, say=lambda line: print(line, flush=True),
        )
    )  # fmt: skip
    (options.out / "report.json").write_text(json.dumps(vars(report), indent=1, default=vars))
    print("\n".join(report.lines()))
    faults = report.faults()
    print("\n".join(f"FAULT: {fault}" for fault in faults) or "no fault")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
