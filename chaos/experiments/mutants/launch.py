"""``ddq`` with one planted bug: the bug's name, and what ddq is given."""

from __future__ import annotations

import sys

from chaos.experiments.mutants.registry import bug
from ddq.cli import main

if __name__ == "__main__":
    planted = bug(sys.argv[1])
    print(f"PLANTED BUG {planted.name}: {planted.doc}", file=sys.stderr, flush=True)
    with planted.plant():
        sys.exit(main(sys.argv[2:]))
