"""How the release tools read CHANGELOG.md, DEVELOPMENT_LOG.md and the ADRs.

ADR 002 says what form these have; this module is the only place that knows it in code.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.repo import Repo, Version

CHANGELOG = "CHANGELOG.md"
LOG = "DEVELOPMENT_LOG.md"
ADR_FOLDER = "docs/adr"
TEMPLATE = "000-template.md"

STATUSES = ("Draft", "Accepted", "Rejected", "Superseded by [ADR NNN](NNN-name.md)")

_LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)[^)]*\)")
_ADR_NAME = re.compile(r"(?P<number>\d{3})-[a-z0-9-]+\.md")
_ADR_MENTION = re.compile(r"\bADR[ -](?P<number>\d{3})\b|docs/adr/(?P<path>\d{3})-")
_RELEASE_HEADING = re.compile(r"## \[(?P<version>[^\]]+)\](?: - (?P<date>\S+))?\s*")
_STATUS = re.compile(r"^- Status: (?P<status>.+?)\s*$", re.MULTILINE)
_SUPERSEDED = re.compile(r"Superseded by \[ADR (?P<number>\d{3})\]\((?P<target>[^)]+)\)")
_INDEX_ROW = re.compile(
    r"^\|\s*\[(?P<number>\d{3})\]\((?P<target>[^)]+)\)\s*\|[^|]*\|\s*(?P<status>[^|]*?)\s*\|"
)
_MILESTONE = re.compile(r"^- \[(?P<tick>[ x])\] (?P<text>.+)$", re.MULTILINE)


# --- any Markdown file ----------------------------------------------------------------------------


def section(text: str, title: str) -> str | None:
    """What stands under `## title`, up to the next heading of that level."""
    found = re.search(rf"^## {re.escape(title)}\s*$", text, flags=re.MULTILINE)
    if found is None:
        return None
    rest = text[found.end() :]
    end = re.search(r"^## ", rest, flags=re.MULTILINE)
    return rest[: end.start()] if end else rest


def links(text: str) -> Iterator[str]:
    """The targets of a page's links that point into the repository, without `#fragment`."""
    prose = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"`[^`\n]*`", "", prose)
    for found in _LINK.finditer(prose):
        target = found["target"].split("#")[0]
        if target and not re.match(r"[a-z][a-z0-9+.-]*:", target):
            yield target


def adr_mentions(text: str) -> set[str]:
    """The numbers of the ADRs that a text names: `ADR 004`, `ADR-004` or a path to the file."""
    return {found["number"] or found["path"] for found in _ADR_MENTION.finditer(text)}


def without_comments(text: str) -> str:
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


# --- CHANGELOG.md ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Release:
    """One `## [X.Y.Z] - date` of the changelog, or `## [Unreleased]`, with what stands under it."""

    title: str
    date: str | None
    body: str

    @property
    def version(self) -> Version | None:
        return Version.parse(self.title)

    @property
    def heading(self) -> str:
        return f"## [{self.title}]" + (f" - {self.date}" if self.date else "")

    def has_valid_date(self) -> bool:
        try:
            datetime.date.fromisoformat(self.date or "")
        except ValueError:
            return False
        return True


def parse_changelog(text: str) -> tuple[str, list[Release]]:
    """The introduction, and the releases in the order of the file."""
    introduction: list[str] = []
    releases: list[Release] = []
    body = introduction
    for line in text.splitlines(keepends=True):
        found = _RELEASE_HEADING.fullmatch(line)
        if found is None:
            body.append(line)
            continue
        _close(releases, body)
        releases.append(Release(found["version"], found["date"], ""))
        body = []
    _close(releases, body)
    return "".join(introduction), releases


def _close(releases: list[Release], body: list[str]) -> None:
    if releases:
        last = releases[-1]
        releases[-1] = Release(last.title, last.date, "".join(body))


# --- DEVELOPMENT_LOG.md ---------------------------------------------------------------------------


@dataclass(frozen=True)
class IndexRow:
    number: str
    target: str
    status: str


def decision_index(log: str) -> list[IndexRow]:
    rows = (section(log, "Decision Index") or "").splitlines()
    return [
        IndexRow(found["number"], found["target"], found["status"])
        for row in rows
        if (found := _INDEX_ROW.match(row))
    ]


@dataclass(frozen=True)
class Milestone:
    text: str
    done: bool


def milestones(log: str) -> list[Milestone]:
    found = _MILESTONE.finditer(section(log, "Milestones") or "")
    return [Milestone(match["text"], match["tick"] == "x") for match in found]


def journal_headings(log: str) -> list[str]:
    journal = section(log, "Change Journal") or ""
    return re.findall(r"^### (.+)$", journal, flags=re.MULTILINE)


def names(text: str, version: Version) -> bool:
    """Whether a text names this very version: v0.1.0 is not named by v0.1.01 or v10.1.0."""
    return re.search(rf"(?<![\w.])v?{re.escape(str(version))}(?![\w]|\.\d)", text) is not None


# --- ADRs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Adr:
    path: Path
    """Relative to the repository."""
    number: str
    text: str

    @property
    def status(self) -> str | None:
        found = _STATUS.search(self.text)
        return found["status"] if found else None

    @property
    def status_word(self) -> str | None:
        """`Draft`, `Accepted`, `Rejected` or `Superseded`; None when it is none of these."""
        status = self.status or ""
        if status in {"Draft", "Accepted", "Rejected"}:
            return status
        return "Superseded" if _SUPERSEDED.fullmatch(status) else None

    @property
    def superseded_by(self) -> tuple[str, str] | None:
        """The number and the link target of the ADR that took this one's place."""
        found = _SUPERSEDED.fullmatch(self.status or "")
        return (found["number"], found["target"]) if found else None

    def supersedes(self, number: str) -> bool:
        """Whether this one says of itself that it took the place of that one."""
        return (
            re.search(rf"^- Supersedes: .*\[ADR {number}\]\(", self.text, flags=re.MULTILINE)
            is not None
        )

    @property
    def confirmation(self) -> str:
        """What stands under the heading Confirmation: what fails if the decision were undone."""
        found = re.search(
            r"^#{2,3} Confirmation\s*$(.*?)(?=^#{1,3} |\Z)",
            self.text,
            flags=re.MULTILINE | re.DOTALL,
        )
        return without_comments(found[1]).strip() if found else ""


def adrs(repo: Repo) -> list[Adr]:
    folder = repo.root / ADR_FOLDER
    found = []
    for path in sorted(folder.glob("*.md")):
        name = _ADR_NAME.fullmatch(path.name)
        if name and path.name != TEMPLATE:
            here = path.relative_to(repo.root)
            found.append(Adr(here, name["number"], path.read_text(encoding="utf-8")))
    return found
