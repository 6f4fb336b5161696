"""A throw-away project that is ready to be released, for tests to break in one place each."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

CHANGELOG = """\
# Changelog

What users notice.

## [Unreleased]

## [0.2.0] - 2026-02-02

Upgrade one server at a time.

<!-- commits -->
### Added

- **queue:** wait longer
<!-- /commits -->

## [0.1.0] - 2026-01-01

The first one, see [ADR 001](docs/adr/001-one-store.md).
"""

LOG = """\
# Development log

## Purpose

To wait.

## Working Agreements

- Be exact.

## Decision Index

| ADR | Decision | Status | Since |
|---|---|---|---|
| [001](docs/adr/001-one-store.md) | One store | Superseded | v0.1.0 |
| [002](docs/adr/002-many-stores.md) | Many stores | Accepted | v0.2.0 |
| [003](docs/adr/003-no-store.md) | No store | Draft | v0.3.0 |

## Milestones

- [x] **M0, v0.1.0**: the queue.
- [x] **M1, v0.2.0**: more than one store.
- [ ] **M2, v0.3.0**: no store at all, [ADR 003](docs/adr/003-no-store.md).

## Change Journal

### 2026-02-02 · v0.2.0: more stores

As [ADR 002](docs/adr/002-many-stores.md) says.

### 2026-01-15: something tried in between

ADR 003 came out of it.

### 2026-01-01 · v0.1.0: the first

It waits.
"""

ADR_001 = """\
# ADR 001: one store

- Status: Superseded by [ADR 002](002-many-stores.md)
- Date: 2026-01-01

## Decision Outcome

One.

### Confirmation

test_one_store.
"""

ADR_002 = """\
# ADR 002: many stores

- Status: Accepted
- Date: 2026-02-01
- Supersedes: [ADR 001](001-one-store.md)

## Decision Outcome

Many.

### Confirmation

test_many_stores.

## Pros and Cons of the Options

None.
"""

ADR_003 = """\
# ADR 003: no store

- Status: Draft
- Date: 2026-02-01

### Confirmation

<!-- later -->
"""


@dataclass(frozen=True)
class Project:
    root: Path

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.root,
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def read(self, path: str) -> str:
        return (self.root / path).read_text(encoding="utf-8")

    def replace(self, path: str, old: str, new: str) -> None:
        text = self.read(path)
        assert old in text, f"{old!r} is not in {path}"
        self.write(path, text.replace(old, new))

    def remove(self, path: str) -> None:
        (self.root / path).unlink()

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)


def environment() -> dict[str, str]:
    """The environment at a fixed time, without the configuration of the user."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "A",
        "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_AUTHOR_DATE": "2026-02-02T12:00:00+00:00",
        "GIT_COMMITTER_NAME": "A",
        "GIT_COMMITTER_EMAIL": "a@example.org",
        "GIT_COMMITTER_DATE": "2026-02-02T12:00:00+00:00",
    }


def build(root: Path) -> Project:
    """0.1.0 is released; release/v0.2.0 is checked out and ready."""
    project = Project(root)
    root.mkdir()
    project.git("init", "--quiet", "--initial-branch=main")
    project.write("ddq/__init__.py", '__version__ = "0.1.0"\n')
    project.commit("feat: wait")
    project.git("tag", "--annotate", "v0.1.0", "--message", "ddq 0.1.0")
    project.git("switch", "--quiet", "--create", "develop")
    project.commit("feat(queue): wait longer")
    project.git("switch", "--quiet", "--create", "release/v0.2.0")
    project.write("ddq/__init__.py", '__version__ = "0.2.0"\n')
    project.write("CHANGELOG.md", CHANGELOG)
    project.write("DEVELOPMENT_LOG.md", LOG)
    project.write("docs/adr/000-template.md", "# ADR NNN\n\n- Status: whatever\n")
    project.write("docs/adr/001-one-store.md", ADR_001)
    project.write("docs/adr/002-many-stores.md", ADR_002)
    project.write("docs/adr/003-no-store.md", ADR_003)
    project.commit("docs: describe release 0.2.0, as ADR 002 says")
    return project


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("pristine") / "project").root


@pytest.fixture
def project(pristine: Path, tmp_path: Path) -> Project:
    """A copy for one test; building it for each test would cost a dozen git processes."""
    root = tmp_path / "project"
    shutil.copytree(pristine, root)
    return Project(root)
