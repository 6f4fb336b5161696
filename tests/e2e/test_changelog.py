"""The real git-chglog on a throw-away history; not in tests/release because it needs Go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.release.conftest import Project, build
from tools import changelog
from tools.repo import ROOT

HISTORY = (
    "feat: first of two",
    "docs: correct a sentence",
    "fix(store): lose nothing",
    "perf: wait less",
    "feat(client, worker): second of two",
    "change(api)!: name it otherwise\n\nBecause.\n\nBREAKING CHANGE: call the new\nname",
    "deprecate: the old flag",
    "remove: the older flag",
    "security: check the certificate",
    "chore: tidy",
    "fix(tools): ours alone",
)

EXPECTED = """\
## [0.2.0] - 2026-02-02

By hand.

<!-- commits -->
### Added

- **client, worker:** second of two
- first of two
- **queue:** wait longer

### Changed

- **Breaking:** call the new name
- **api:** name it otherwise
- wait less

### Deprecated

- the old flag

### Removed

- the older flag

### Fixed

- **store:** lose nothing

### Security

- check the certificate
<!-- /commits -->
"""


@pytest.fixture(scope="module")
def git_chglog() -> str:
    return changelog.find_chglog()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = build(tmp_path / "project")
    shutil.copytree(ROOT / ".chglog", project.root / ".chglog")
    project.write("CHANGELOG.md", "# Changelog\n\n## [Unreleased]\n\nBy hand.\n")
    for message in HISTORY:
        project.commit(message)
    project.git("switch", "--quiet", "--create", "side", "HEAD~3")
    project.commit("test: on a side branch")
    project.git("switch", "--quiet", "-")
    project.git("merge", "--quiet", "--no-ff", "--message", "Merge: feat: not a commit", "side")
    return project


def make(project: Project, *arguments: str, zone: str = "UTC") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.changelog", *arguments, "--root", str(project.root)],
        cwd=ROOT,
        env={**os.environ, "TZ": zone},
        capture_output=True,
        text=True,
        check=False,
    )


def test_twice_gives_identical_bytes_in_every_time_zone(git_chglog: str, project: Project) -> None:
    assert make(project, "v0.2.0").returncode == 0
    first = project.read("CHANGELOG.md")
    assert EXPECTED in first
    for zone in ("UTC", "Pacific/Kiritimati", "America/Los_Angeles"):
        assert make(project, "v0.2.0", zone=zone).returncode == 0
        assert project.read("CHANGELOG.md") == first
    # Its own commit changes nothing, so the gate can ask for it on the branch that holds it.
    project.commit("docs: describe release 0.2.0")
    assert make(project, "v0.2.0", "--check").returncode == 0


def test_once_tagged_it_is_still_the_same(git_chglog: str, project: Project) -> None:
    assert make(project, "v0.2.0").returncode == 0
    first = project.read("CHANGELOG.md")
    project.git("tag", "--annotate", "v0.2.0", "--message", "ddq 0.2.0")
    project.commit("feat: for the next one")
    assert make(project, "v0.2.0").returncode == 0
    assert project.read("CHANGELOG.md") == first

    assert make(project, "v0.3.0").returncode == 0
    both = project.read("CHANGELOG.md")
    assert "### Added\n\n- for the next one\n<!-- /commits -->\n\n## [0.2.0]" in both
    assert EXPECTED in both


def test_new_commits_come_in_and_the_prose_stays(git_chglog: str, project: Project) -> None:
    assert make(project, "v0.2.0").returncode == 0
    project.replace("CHANGELOG.md", "By hand.", "By hand, and longer.")
    project.commit("fix: in the last minute")
    done = make(project, "v0.2.0", "--check")
    assert done.returncode == 1
    assert "run: make changelog VERSION=v0.2.0" in done.stderr
    assert make(project, "v0.2.0").returncode == 0
    text = project.read("CHANGELOG.md")
    assert "By hand, and longer." in text
    assert "### Fixed\n\n- in the last minute\n- **store:** lose nothing\n" in text


def test_a_release_that_changes_nothing_for_users_has_an_empty_list(
    git_chglog: str, project: Project
) -> None:
    project.git("tag", "--annotate", "v0.2.0", "--message", "ddq 0.2.0")
    project.commit("docs: say more")
    assert make(project, "v0.2.1").returncode == 0
    assert "<!-- commits -->\n\n<!-- /commits -->" in project.read("CHANGELOG.md")


def test_the_workflows_pass_actionlint() -> None:
    done = subprocess.run(["make", "lint-workflows"], cwd=ROOT, check=False)
    assert done.returncode == 0
