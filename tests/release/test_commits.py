"""Which commits the changelog can be made from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.release.conftest import Project
from tools import check_commits
from tools.repo import ROOT, Commit


def commit(subject: str, body: str = "", parents: int = 1) -> Commit:
    return Commit("0123456789abcdef", ("p",) * parents, subject, body)


@pytest.mark.parametrize(
    "subject",
    [
        "feat: wait",
        "fix(store): wait longer",
        "feat(ddq/store): scopes may be paths",
        "chore: a",
        "security(service, client): two scopes",
        "feat: " + "x" * 94,
    ],
)
def test_a_conventional_commit_passes(subject: str) -> None:
    assert check_commits.problem(commit(subject)) is None


@pytest.mark.parametrize(
    ("subject", "remedy"),
    [
        ("Wait longer", "reword it as 'type(scope): subject'"),
        ("feat wait", "reword it"),
        ("feat:wait", "reword it"),
        ("feat: ", "reword it"),
        ("Feat: wait", "reword it"),
        ("feature: wait", "reword it"),
        ("feat(): wait", "reword it"),
        ("feat : wait", "reword it"),
        ("", "reword it"),
        ("feat: " + "x" * 95, "101 characters: cut it to 100"),
        ("feat: wait.", "full stop: remove it"),
        ("feat!: wait", "add a line 'BREAKING CHANGE: what users must do'"),
    ],
)
def test_an_invalid_commit_message_is_refused_with_its_remedy(subject: str, remedy: str) -> None:
    found = check_commits.problem(commit(subject))
    assert found is not None
    assert remedy in found
    assert "\n" not in found


def test_a_breaking_commit_says_what_users_must_do() -> None:
    assert check_commits.problem(commit("feat!: w", "BREAKING CHANGE: wait longer")) is None
    assert check_commits.problem(commit("feat(api)!: w", "Why.\n\nBREAKING CHANGE: wait")) is None
    assert check_commits.problem(commit("feat!: w", "BREAKING CHANGE:")) is not None


def test_a_merge_is_git_s_own_text() -> None:
    assert check_commits.problem(commit("Merge branch 'x'", parents=2)) is None


def test_only_what_the_next_release_brings_is_looked_at(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ["--root", str(project.root)]
    assert check_commits.main(root) == 0
    assert capsys.readouterr().out == "check-commits: 2 commits, every one a Conventional Commit\n"

    project.commit("oops")
    assert check_commits.main(root) == 1
    assert "('oops')" in capsys.readouterr().err
    assert check_commits.main([*root, "--range", "HEAD~2..HEAD~1"]) == 0

    project.git("tag", "--annotate", "v0.2.0", "--message", "v0.2.0")
    assert check_commits.main(root) == 0


def test_a_range_that_does_not_exist_is_named(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_commits.main(["--root", str(project.root), "--range", "nope..HEAD"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "nope..HEAD" in line


def test_the_changelog_has_a_heading_for_exactly_the_types_of_users() -> None:
    template = (ROOT / ".chglog" / "CHANGELOG.tpl.md").read_text()
    listed = re.findall(r'"types" \(list ([^)]*)\)', template)
    assert sorted(" ".join(listed).replace('"', "").split()) == sorted(check_commits.USER_TYPES)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/adr/002-gitflow-and-versioning.md"])
def test_the_pages_name_every_type(page: str) -> None:
    text = (ROOT / Path(page)).read_text()
    for name in check_commits.USER_TYPES + check_commits.OTHER_TYPES:
        assert f"`{name}`" in text
