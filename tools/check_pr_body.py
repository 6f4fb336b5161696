"""Check that a pull request's text, read from standard input, names an ADR that exists.

Every change rests on a decision: the one that it brings, changes or follows. A reviewer who knows
which one judges the change against it instead of against taste.
"""

import argparse
import sys
from pathlib import Path

from tools.documents import ADR_FOLDER, adr_mentions, adrs, without_comments
from tools.repo import ROOT, Repo


def problem(repo: Repo, body: str) -> str | None:
    # The template's own examples stand in comments; they are not an answer.
    named = adr_mentions(without_comments(body))
    known = {adr.number for adr in adrs(repo)}
    if not named:
        return (
            "the text names no ADR: add a line such as 'ADR 002' for the decision that this change "
            f"brings, changes or follows ({ADR_FOLDER})"
        )
    if unknown := sorted(named - known):
        return (
            f"the text names ADR {', '.join(unknown)}, which is not in {ADR_FOLDER}: correct the "
            "number, or add the ADR to this change"
        )
    return None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="check-pr-body", description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    found = problem(Repo(options.root), sys.stdin.read())
    if found:
        print(f"check-pr-body: {found}", file=sys.stderr)
        return 1
    print("check-pr-body: it names an ADR that exists")
    return 0


if __name__ == "__main__":
    sys.exit(main())
