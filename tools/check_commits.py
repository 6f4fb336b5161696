"""Check that commits are Conventional Commits, because the changelog is made from them.

Without arguments: everything since the last release. With `--range A..B`: those.
"""

import argparse
import re
import sys
from pathlib import Path

from tools.repo import ROOT, Commit, Repo, ToolError

# Those with a heading in the changelog first; .chglog/CHANGELOG.tpl.md has the same list.
USER_TYPES = ("feat", "change", "perf", "revert", "deprecate", "remove", "fix", "security")
OTHER_TYPES = ("docs", "test", "build", "ci", "refactor", "style", "chore")
HEADER_MAX_CHARS = 100

_HEADER = re.compile(
    rf"(?P<type>{'|'.join(USER_TYPES + OTHER_TYPES)})(\([\w$.\-*/, ]+\))?(?P<breaking>!)?: \S.*"
)


def type_of(commit: Commit) -> str | None:
    found = _HEADER.fullmatch(commit.subject)
    return found["type"] if found else None


def problem(commit: Commit) -> str | None:
    """One line that says what is wrong with a commit and what to do, or None."""
    # git writes the messages of merges; what they bring is checked commit by commit.
    if len(commit.parents) > 1:
        return None
    name = f"commit {commit.hash[:9]} ({commit.subject!r})"
    found = _HEADER.fullmatch(commit.subject)
    if found is None:
        return (
            f"{name} is not a Conventional Commit: reword it as 'type(scope): subject' with a type "
            f"of {', '.join(USER_TYPES + OTHER_TYPES)}"
        )
    if len(commit.subject) > HEADER_MAX_CHARS:
        return (
            f"{name} has a header of {len(commit.subject)} characters: cut it to {HEADER_MAX_CHARS}"
        )
    if commit.subject.endswith("."):
        return f"{name} ends in a full stop: remove it, the subject becomes a changelog entry"
    if found["breaking"] and not re.search(r"^BREAKING CHANGE: \S", commit.body, re.MULTILINE):
        return f"{name} is marked with '!': add a line 'BREAKING CHANGE: what users must do'"
    return None


def problems(repo: Repo, span: str) -> list[str]:
    return [line for commit in repo.commits(span) if (line := problem(commit))]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="check-commits", description=__doc__)
    parser.add_argument("--range", help="a revision range; default: since the last release")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    repo = Repo(options.root)
    try:
        span = options.range or repo.since_last_release()
        found = problems(repo, span)
        count = len(repo.commits(span))
    except ToolError as error:
        found, count = [str(error)], 0
    for line in found:
        print(f"check-commits: {line}", file=sys.stderr)
    if not found:
        print(f"check-commits: {count} commits, every one a Conventional Commit")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
