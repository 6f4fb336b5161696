"""What the release tools know about git: versions, tags and commits."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Between the fields of one commit and between commits: bytes that no commit message holds.
FIELD, RECORD = "\x1f", "\x1e"


class ToolError(Exception):
    """One line for the user: what is wrong, and what to do."""


@dataclass(frozen=True, order=True)
class Version:
    """A SemVer version without pre-release part; ddq releases nothing else."""

    major: int
    minor: int
    patch: int

    @staticmethod
    def parse(text: str) -> Version | None:
        number = r"(0|[1-9][0-9]*)"
        found = re.fullmatch(rf"{number}\.{number}\.{number}", text)
        return Version(*(int(part) for part in found.groups())) if found else None

    @staticmethod
    def parse_tag(text: str) -> Version | None:
        return Version.parse(text[1:]) if text.startswith("v") else None

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    @property
    def tag(self) -> str:
        return f"v{self}"


@dataclass(frozen=True)
class Commit:
    hash: str
    parents: tuple[str, ...]
    subject: str
    body: str


@dataclass(frozen=True)
class Repo:
    root: Path = ROOT

    def git(self, *arguments: str) -> str:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=self.root, capture_output=True, text=True, check=False
            )
        except FileNotFoundError as error:
            raise ToolError("git is not on the PATH; install it") from error
        if done.returncode != 0:
            reason = (done.stderr.strip() or "no message").splitlines()[-1]
            raise ToolError(f"git {arguments[0]} failed: {reason}")
        return done.stdout

    def exists(self, revision: str) -> bool:
        try:
            self.git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
        except ToolError:
            return False
        return True

    def released(self) -> list[Version]:
        """The released versions, oldest first: every tag of the form vX.Y.Z."""
        tags = self.git("tag", "--list").split()
        return sorted(version for tag in tags if (version := Version.parse_tag(tag)))

    def commits(self, span: str) -> list[Commit]:
        """The commits of a revision range, newest first."""
        form = FIELD.join(["%H", "%P", "%s", "%b"]) + RECORD
        records = self.git("log", f"--format={form}", span, "--").split(RECORD)
        commits = []
        for record in records:
            if not record.strip():
                continue
            digest, parents, subject, body = record.lstrip("\n").split(FIELD)
            commits.append(Commit(digest, tuple(parents.split()), subject, body.strip()))
        return commits

    def since_last_release(self) -> str:
        """The range of what the next release brings; the whole history before the first one."""
        released = self.released()
        return f"{released[-1].tag}..HEAD" if released else "HEAD"

    def read(self, path: str) -> str:
        try:
            return (self.root / path).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise ToolError(f"{path} is missing; restore or write it") from error

    def package_version(self) -> str:
        found = re.search(
            r'^__version__ = "([^"]+)"', self.read("ddq/__init__.py"), flags=re.MULTILINE
        )
        if found is None:
            raise ToolError('ddq/__init__.py has no line like: __version__ = "0.1.0"; add it')
        return found.group(1)
