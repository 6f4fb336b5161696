"""``python -m models.barrier``: searches for a schedule that loses an acknowledged write.

Exit status: 0: there is none within the bounds; 1: one was found, and is printed; 2: the bound on
states was reached before the search was complete.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from dataclasses import fields, replace

from models.barrier.rule import Rule
from models.barrier.search import search
from models.barrier.state import Fault
from models.barrier.store import Faults

KINDS = {kind.name.lower(): kind for kind in Fault if kind != Fault.NONE}
PARTS = tuple(field.name for field in fields(Rule) if field.name != "all")


def main(words: list[str] | None = None) -> int:
    """Runs one search; see the module."""
    parser = argparse.ArgumentParser(prog="python -m models.barrier", description=__doc__)
    parser.add_argument(
        "faults",
        nargs="*",
        default=["paused"],
        help="the faults in order, each one kind or several, separated by commas: "
        + ", ".join(KINDS),
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=PARTS,
        help="a part of the rule to leave out; may be given several times",
    )
    parser.add_argument("--all", action="store_true", help="durability ALL instead of QUORUM")
    parser.add_argument(
        "--candidates",
        action="store_true",
        help="faults may also strike between a Sentinel's vote for itself and its election",
    )
    parser.add_argument(
        "--deep",
        action="store_true",
        help="search every pair of faults, and the pair whose loss was measured without the votes",
    )
    parser.add_argument("--states", type=int, default=1_000_000, help="the bound on states")
    options = parser.parse_args(words)
    if options.deep:
        return _deep(options.states)
    try:
        kinds = tuple(tuple(KINDS[name] for name in each.split(",")) for each in options.faults)
    except KeyError as error:
        parser.error(f"no kind of fault is called {error}; there are {', '.join(KINDS)}")
    parts = dict.fromkeys(options.without, False)
    if not options.candidates:
        # Without candidates this part of the rule has no effect, and there are fewer states.
        parts["candidates"] = False
    rule = replace(Rule(all=options.all), **parts)
    found = search(rule, Faults(kinds, options.candidates), options.states)
    for line in found.schedule:
        print(line)
    end = "a write is lost" if found.schedule else "holds" if found.exhausted else "not finished"
    print(f"{end}: {found.states_count:,} states")
    return 1 if found.schedule else 0 if found.exhausted else 2


def _deep(states_max_count: int) -> int:
    """Two faults in turn: with the rule none may lose a write, and without the votes one must."""
    status = 0
    for pair in itertools.product(("paused", "isolated"), repeat=2):
        print(" then ".join(pair), flush=True)
        if main([*pair, "--states", str(states_max_count)]) == 1:
            status = 1
    print("paused then isolated, without the votes", flush=True)
    control = ["paused", "isolated", "--without", "votes", "--states", str(states_max_count)]
    if main(control) != 1:
        print("the control found no loss: the bound on states is too small")
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
