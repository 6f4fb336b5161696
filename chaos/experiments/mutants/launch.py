"""``ddq`` with one seeded mutation: its name, and the arguments of ddq."""

from __future__ import annotations

import sys

from chaos.experiments.mutants.registry import find_mutation
from ddq.cli import main

if __name__ == "__main__":
    mutation = find_mutation(sys.argv[1])
    print(f"SEEDED MUTATION {mutation.name}: {mutation.doc}", file=sys.stderr, flush=True)
    with mutation.apply():
        sys.exit(main(sys.argv[2:]))
