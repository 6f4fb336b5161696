"""`make counterexamples`: what goes wrong without the replication barrier, as short as possible.

A lost acknowledged enqueue (G2), a double promotion (G3), and a delivery after an acknowledged
cancel (G4): each is looked for, shortened until nothing can be left out, and printed.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from pathlib import Path

from ddq.store.embedded import EmbeddedStore
from tests.stateful.find import find_by_simulations
from tests.stateful.simulate import Scenario

PROMISES = ("G2", "G3", "G4")
WITHOUT_BARRIER = Scenario("fast", failovers_max_count=1)


def main() -> int:
    """Prints the counterexamples; the exit code is 1 if one could not be found."""
    parser = argparse.ArgumentParser(prog="make counterexamples", description=__doc__)
    parser.add_argument("--examples", type=int, default=5_000, help="tries a promise")
    parser.add_argument("--seed", type=int, default=0, help="of the first try")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    missing = []
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as folder:
        store = EmbeddedStore(Path(folder), sync_always=False)
        runner.run(store.start())
        try:
            for promise in PROMISES:
                found = find_by_simulations(
                    str(store.socket_path),
                    None,
                    WITHOUT_BARRIER,
                    options.examples,
                    shrink=True,
                    seed=options.seed,
                    wanted=(promise,),
                )
                if found is None:
                    missing.append(promise)
                    continue
                print(f"--- after {found.examples} simulations\n{abridged(found.report)}\n")
        finally:
            runner.run(store.stop())
    if missing:
        print(f"not found: {', '.join(missing)}; try more --examples", file=sys.stderr)
    return 1 if missing else 0


def abridged(report: str) -> str:
    """Without what carries no weight: hints, and schedulers that found nothing to do."""
    idle = ("hint to", ": survey on", ": registry on", ": collect on", "copies")
    return "\n".join(line for line in report.splitlines() if not any(word in line for word in idle))


if __name__ == "__main__":
    sys.exit(main())
