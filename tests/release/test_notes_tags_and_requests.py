"""What a release says about itself, what its tag must be, and what a pull request must name."""

from __future__ import annotations

import io

import pytest

from tests.release.conftest import Project
from tools import check_pr_body, check_tag, release_notes
from tools.repo import ROOT, Repo, Version

NOTES = """\
Upgrade one server at a time.

### Added

- **queue:** wait longer

### Decisions

- [ADR 001: one store](docs/adr/001-one-store.md)
- [ADR 002: many stores](docs/adr/002-many-stores.md)
- [ADR 003: no store](docs/adr/003-no-store.md)
"""


# --- notes ----------------------------------------------------------------------------------------


def test_notes_are_the_changelog_and_the_decisions_since(project: Project) -> None:
    assert release_notes.notes(Repo(project.root), Version(0, 2, 0), "") == NOTES


def test_notes_name_only_the_decisions_that_changed(project: Project) -> None:
    project.git("tag", "--annotate", "v0.2.0", "--message", "v0.2.0")
    project.replace("docs/adr/003-no-store.md", "Draft", "Rejected")
    project.replace("CHANGELOG.md", "## [0.2.0]", "## [0.3.0] - 2026-03-03\n\nx\n\n## [0.2.0]")
    project.commit("docs: reject it")
    notes = release_notes.notes(Repo(project.root), Version(0, 3, 0), "")
    assert notes == "x\n\n### Decisions\n\n- [ADR 003: no store](docs/adr/003-no-store.md)\n"
    # The notes of a version that is out do not grow by what came after it.
    project.write("docs/adr/004-later.md", "# ADR 004: later\n\n- Status: Draft\n")
    project.commit("docs: think of something later")
    assert release_notes.notes(Repo(project.root), Version(0, 2, 0), "") == NOTES


def test_notes_of_the_first_release_name_all_decisions_and_link_to_the_given_base(
    project: Project,
) -> None:
    notes = release_notes.notes(Repo(project.root), Version(0, 1, 0), "https://example.org/x/")
    assert notes.startswith(
        "The first one, see [ADR 001](https://example.org/x/docs/adr/001-one-store.md).\n"
    )
    assert "- [ADR 002: many stores](https://example.org/x/docs/adr/002-many-stores.md)" in notes


@pytest.mark.parametrize(
    ("version", "remedy"), [("v0.9.0", "run make changelog VERSION=v0.9.0"), ("9", "such as v0.")]
)
def test_notes_of_what_is_not_there_are_refused(
    version: str, remedy: str, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert release_notes.main([version, "--root", str(project.root)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert remedy in line


# --- tags -----------------------------------------------------------------------------------------


def tagged(project: Project, *options: str) -> None:
    """The release is merged to main and tagged there."""
    project.git("switch", "--quiet", "main")
    project.git("merge", "--quiet", "--no-ff", "--message", "Merge", "release/v0.2.0")
    project.git("tag", *options, "v0.2.0")


def faults(project: Project, tag: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    status = check_tag.main([tag, "--root", str(project.root)])
    lines = capsys.readouterr().err.splitlines()
    assert status == (1 if lines else 0)
    return lines


def test_a_good_tag_passes(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    tagged(project, "--annotate", "--message", "ddq 0.2.0")
    assert faults(project, "v0.2.0", capsys) == []


def test_a_lightweight_tag_is_refused(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    tagged(project)
    (line,) = faults(project, "v0.2.0", capsys)
    assert "is not annotated" in line
    assert "git tag --annotate v0.2.0" in line


def test_a_tag_beside_main_is_refused(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.git("tag", "--annotate", "v0.2.0", "--message", "ddq 0.2.0")
    (line,) = faults(project, "v0.2.0", capsys)
    assert "v0.2.0 is not on main: merge" in line


def test_a_tag_without_main_is_refused(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    tagged(project, "--annotate", "--message", "ddq 0.2.0")
    project.git("switch", "--quiet", "develop")
    project.git("branch", "--quiet", "--delete", "--force", "main")
    project.git("checkout", "--quiet", "v0.2.0")
    (line,) = faults(project, "v0.2.0", capsys)
    assert "no branch main here: fetch it" in line


def test_a_tag_on_another_version_is_refused(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    tagged(project, "--annotate", "--message", "ddq 0.2.0")
    project.git("tag", "--annotate", "v0.3.0", "--message", "ddq 0.3.0")
    (line,) = faults(project, "v0.3.0", capsys)
    assert "package version is 0.2.0" in line


@pytest.mark.parametrize(
    ("tag", "remedy"), [("0.2.0", "expected vX.Y.Z"), ("v0.9.0", "there is no tag v0.9.0")]
)
def test_an_invalid_tag_is_refused(
    tag: str, remedy: str, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = faults(project, tag, capsys)
    assert remedy in line


# --- pull requests --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "Follows ADR 002.",
        "Brings ADR-003, changes [ADR 001](docs/adr/001-one-store.md)",
        "See docs/adr/002-many-stores.md",
        "<!-- ADR 999 -->\nADR 002\r\n",
    ],
)
def test_a_request_that_names_its_adr_passes(body: str, project: Project) -> None:
    assert check_pr_body.problem(Repo(project.root), body) is None


@pytest.mark.parametrize(
    ("body", "remedy"),
    [
        ("", "names no ADR"),
        ("It is a small thing.", "names no ADR"),
        ("<!-- for example: ADR 002 -->", "names no ADR"),
        ("See the ADR.", "names no ADR"),
        ("ADR 2", "names no ADR"),
        ("ADR 0021", "names no ADR"),
        ("ADR 009", "names ADR 009, which is not in docs/adr"),
        ("ADR 002 and ADR 009", "names ADR 009, which is not in docs/adr"),
        ("ADR 000", "names ADR 000, which is not in docs/adr"),
    ],
)
def test_an_incomplete_merge_request_is_refused_with_its_remedy(
    body: str,
    remedy: str,
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(body))
    assert check_pr_body.main(["--root", str(project.root)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert remedy in line


def test_the_template_alone_is_no_answer() -> None:
    template = (ROOT / ".github" / "pull_request_template.md").read_text()
    problem = check_pr_body.problem(Repo(ROOT), template)
    assert problem is not None
    assert "names no ADR" in problem
