"""Looks by coverage for bytes that a decoder does not expect; needs atheris.

    make fuzz-decoders
    make fuzz-decoders ARGS='-runs=2000000 -seed=7'

It begins with requests of every RPC, and continues with what reaches another branch. The first
input that raises what its decoder does not document ends it, with the traceback and the input.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["ddq"]):
    from tests.fuzz import calls, decoders

RUNS = 300_000
SAMPLES_COUNT = 5
"""Requests of each RPC to begin with."""


def main() -> None:
    """Runs atheris, which ends the process."""
    runs = [] if any(each.startswith("-runs") for each in sys.argv) else [f"-runs={RUNS}"]
    with tempfile.TemporaryDirectory(prefix="ddq-fuzz-") as folder:
        random = Random(0)
        for number, method in enumerate(calls.METHODS):
            for sample in range(SAMPLES_COUNT):
                data = bytes([0, number]) + calls.nearly_valid(method, random)
                (Path(folder) / f"{method.name}-{sample}").write_bytes(data)
        atheris.Setup([*sys.argv, *runs, folder], decoders.check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
