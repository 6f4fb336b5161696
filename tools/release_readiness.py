"""The gate before a release: `make release-readiness BRANCH=release/v0.2.0`.

Judges the checked-out files as if they were that branch's, and the commits since the last release.
Every check that fails says in one line what to do. `--documents` runs only those checks that hold
between releases too: the ADRs, their index and their links.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools import check_commits
from tools.documents import (
    CHANGELOG,
    LOG,
    STATUSES,
    Adr,
    Release,
    adr_mentions,
    adrs,
    decision_index,
    journal_headings,
    links,
    milestones,
    names,
    parse_changelog,
    section,
    without_comments,
)
from tools.repo import ROOT, Repo, ToolError, Version

KINDS = ("release", "hotfix")
LOG_SECTIONS = (
    "Purpose",
    "Working Agreements",
    "Decision Index",
    "Milestones",
    "Change Journal",
)
# What may be committed on a release branch: what blocks the release, and nothing that adds to it.
RELEASE_BRANCH_TYPES = {"fix", "security", "revert", "docs", "test", "build", "ci", "chore"}


@dataclass(frozen=True)
class Candidate:
    """What is about to be released, and from which branch."""

    repo: Repo
    branch: str
    kind: str
    version: Version

    @staticmethod
    def of(repo: Repo, branch: str) -> Candidate:
        kind, _, name = branch.partition("/")
        version = Version.parse_tag(name)
        if kind not in KINDS or version is None:
            raise ToolError(
                f"branch {branch!r} names no release: rename it to release/vX.Y.Z or hotfix/vX.Y.Z "
                "with three numbers without leading zeros"
            )
        return Candidate(repo, branch, kind, version)

    def changelog_entry(self) -> Release | None:
        _, releases = parse_changelog(self.repo.read(CHANGELOG))
        return next((entry for entry in releases if entry.version == self.version), None)


# --- the checks of a release: each yields its problems, one line each -----------------------------


def version_is_newer(candidate: Candidate) -> Iterator[str]:
    released = candidate.repo.released()
    if released and candidate.version <= released[-1]:
        yield (
            f"version {candidate.version} is not newer than the last tag {released[-1].tag}: "
            "rename the branch to a newer version"
        )


def last_release_is_contained(candidate: Candidate) -> Iterator[str]:
    repo = candidate.repo
    released = repo.released()
    if released and repo.git("rev-list", "--count", f"HEAD..{released[-1].tag}").strip() != "0":
        yield (
            f"this branch does not contain {released[-1].tag}, so it would undo what was fixed "
            "there: merge main into develop, and develop into this branch"
        )


def hotfix_changes_the_patch_number(candidate: Candidate) -> Iterator[str]:
    released = candidate.repo.released()
    if candidate.kind != "hotfix":
        return
    if not released:
        yield "a hotfix needs a release to fix, and there is no tag: use release/vX.Y.Z"
        return
    last, new = released[-1], candidate.version
    if new > last and (new.major, new.minor) != (last.major, last.minor):
        yield (
            f"a hotfix changes only the last number of {last.tag}: rename the branch to "
            f"hotfix/v{last.major}.{last.minor}.{last.patch + 1}, or make it a release/ branch"
        )


def package_has_the_version(candidate: Candidate) -> Iterator[str]:
    have = candidate.repo.package_version()
    if have != str(candidate.version):
        yield (
            f'the package\'s version is {have}: set __version__ = "{candidate.version}" in '
            "ddq/__init__.py"
        )


def changelog_names_the_release(candidate: Candidate) -> Iterator[str]:
    entry = candidate.changelog_entry()
    tag = candidate.version.tag
    if entry is None:
        yield f"{CHANGELOG} has no section [{candidate.version}]: run make changelog VERSION={tag}"
        return
    if not entry.has_valid_date():
        yield (
            f"{CHANGELOG}: the heading of [{candidate.version}] has no date: write it as "
            f"'## [{candidate.version}] - YYYY-MM-DD'"
        )
    if not without_comments(entry.body).strip():
        yield (
            f"{CHANGELOG}: nothing stands under [{candidate.version}]: say there what users will "
            "notice"
        )


def changelog_is_in_order(candidate: Candidate) -> Iterator[str]:
    _, releases = parse_changelog(candidate.repo.read(CHANGELOG))
    versions = [entry.version for entry in releases if entry.version]
    if versions != sorted(set(versions), reverse=True):
        yield f"{CHANGELOG}: its releases are not newest first, each once: put them in that order"


def log_names_the_release(candidate: Candidate) -> Iterator[str]:
    log = candidate.repo.read(LOG)
    if not any(names(heading, candidate.version) for heading in journal_headings(log)):
        yield (
            f"{LOG}: no heading of the Change Journal names {candidate.version.tag}: add "
            f"'### YYYY-MM-DD · {candidate.version.tag}: ...' with what was tried and found"
        )
    for milestone in milestones(log):
        if names(milestone.text, candidate.version) and not milestone.done:
            yield (
                f"{LOG}: the milestone '{milestone.text}' is not ticked: tick it, or release it "
                "later"
            )


def no_draft_is_referenced(candidate: Candidate) -> Iterator[str]:
    repo = candidate.repo
    entry = candidate.changelog_entry()
    log = repo.read(LOG)
    texts = [entry.body if entry else ""]
    texts += [m.text for m in milestones(log) if names(m.text, candidate.version)]
    texts += [journal_entry(log, h) for h in journal_headings(log) if names(h, candidate.version)]
    texts += [f"{c.subject}\n{c.body}" for c in repo.commits(repo.since_last_release())]
    mentioned = set().union(*(adr_mentions(text) for text in texts))
    for adr in adrs(repo):
        if adr.status_word == "Draft" and adr.number in mentioned:
            yield (
                f"{adr.path} is a Draft and this release refers to it: accept or reject it, or "
                "take the reference out"
            )


def journal_entry(log: str, heading: str) -> str:
    journal = section(log, "Change Journal") or ""
    _, _, rest = journal.partition(f"### {heading}\n")
    return heading + "\n" + rest.split("\n### ")[0]


def commits_are_conventional(candidate: Candidate) -> Iterator[str]:
    yield from check_commits.problems(candidate.repo, candidate.repo.since_last_release())


def branch_holds_only_fixes(candidate: Candidate) -> Iterator[str]:
    """On the branch itself, after it left the one it came from."""
    origin = "main" if candidate.kind == "hotfix" else "develop"
    base = next((b for b in (f"origin/{origin}", origin) if candidate.repo.exists(b)), None)
    if base is None:
        print(
            f"release-readiness: note: there is no branch {origin} here, so nothing is said about "
            f"which commits are only on {candidate.branch}"
        )
        return
    for commit in candidate.repo.commits(f"{base}..HEAD"):
        kind = check_commits.type_of(commit)
        if len(commit.parents) < 2 and kind and kind not in RELEASE_BRANCH_TYPES:
            yield (
                f"commit {commit.hash[:9]} ({commit.subject!r}) is not a fix: a {candidate.kind} "
                f"branch takes only what blocks the release, so move it to develop"
            )


# --- the checks of the documents, which hold at every commit --------------------------------------


def log_has_its_sections(repo: Repo) -> Iterator[str]:
    log = repo.read(LOG)
    for title in LOG_SECTIONS:
        if section(log, title) is None:
            yield f"{LOG} has no section '## {title}': add it"


def every_adr_is_indexed(repo: Repo) -> Iterator[str]:
    rows = decision_index(repo.read(LOG))
    known = adrs(repo)
    indexed = {row.target for row in rows}
    for adr in known:
        if str(adr.path) not in indexed:
            yield (
                f"{adr.path} is not in the Decision Index: add the row "
                f"'| [{adr.number}]({adr.path}) | what was decided | {adr.status_word} | vX.Y.Z |' "
                f"to {LOG}"
            )
    paths = {str(adr.path): adr for adr in known}
    for row in rows:
        if row.target not in paths:
            yield f"{LOG}: the Decision Index names {row.target}, which does not exist: correct it"
        elif (word := paths[row.target].status_word) and row.status != word:
            yield (
                f"{LOG}: the Decision Index says '{row.status}' of {row.target}, which says "
                f"'{word}': write '{word}' in the index"
            )


def every_number_is_used_once(repo: Repo) -> Iterator[str]:
    seen: dict[str, Adr] = {}
    for adr in adrs(repo):
        if adr.number in seen:
            yield f"{adr.path} has the number of {seen[adr.number].path}: give it the next free one"
        seen.setdefault(adr.number, adr)


def every_status_is_valid(repo: Repo) -> Iterator[str]:
    for adr in adrs(repo):
        if adr.status_word is None:
            said = f"the status '{adr.status}'" if adr.status else "no line '- Status: ...'"
            yield f"{adr.path} has {said}: make it one of {', '.join(STATUSES)}"


def every_decision_can_be_confirmed(repo: Repo) -> Iterator[str]:
    for adr in adrs(repo):
        if adr.status_word == "Accepted" and not adr.confirmation:
            yield (
                f"{adr.path} has no text under '### Confirmation': say there which test fails if "
                "the decision were undone"
            )


def every_link_lives(repo: Repo) -> Iterator[str]:
    pages = [CHANGELOG, LOG, *(str(adr.path) for adr in adrs(repo))]
    for page in pages:
        for target in sorted(set(links(repo.read(page)))):
            if not (repo.root / page).parent.joinpath(target).exists():
                yield f"{page} links to {target}, which does not exist: correct or remove the link"


def superseding_is_mutual(repo: Repo) -> Iterator[str]:
    known = adrs(repo)
    by_path = {repo.root / adr.path: adr for adr in known}
    for adr in known:
        if adr.superseded_by is None:
            continue
        number, target = adr.superseded_by
        other = by_path.get((repo.root / adr.path).parent / target)
        # A link to nowhere is what every_link_lives says; one line for one fault.
        if other and (other.number != number or not other.supersedes(adr.number)):
            yield (
                f"{adr.path} says that ADR {number} supersedes it, but {other.path} does not: add "
                f"'- Supersedes: [ADR {adr.number}]({adr.path.name})' there"
            )


RELEASE_CHECKS: tuple[Callable[[Candidate], Iterator[str]], ...] = (
    version_is_newer,
    last_release_is_contained,
    hotfix_changes_the_patch_number,
    package_has_the_version,
    changelog_names_the_release,
    changelog_is_in_order,
    log_names_the_release,
    no_draft_is_referenced,
    commits_are_conventional,
    branch_holds_only_fixes,
)
DOCUMENT_CHECKS: tuple[Callable[[Repo], Iterator[str]], ...] = (
    log_has_its_sections,
    every_adr_is_indexed,
    every_number_is_used_once,
    every_status_is_valid,
    every_decision_can_be_confirmed,
    every_link_lives,
    superseding_is_mutual,
)


def problems(repo: Repo, branch: str | None) -> list[str]:
    """Every problem of the documents, and of the branch when one is given."""
    found: list[str] = []
    try:
        for check in DOCUMENT_CHECKS:
            found += check(repo)
        if branch is not None:
            candidate = Candidate.of(repo, branch)
            for release_check in RELEASE_CHECKS:
                found += release_check(candidate)
    except ToolError as error:
        found.append(str(error))
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="release-readiness", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--branch", help="the branch that would be released, such as release/v0.2.0")
    what.add_argument("--documents", action="store_true", help="only the ADRs and their index")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    found = problems(Repo(options.root), options.branch)
    for line in found:
        print(f"release-readiness: {line}", file=sys.stderr)
    if found:
        return 1
    print(f"release-readiness: {options.branch or 'the documents'}: ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())
