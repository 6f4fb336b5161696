"""The gate: a good release passes, and each fault gives exactly one line that says what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from tests.release.conftest import ADR_003, Project
from tools import release_readiness
from tools.repo import Repo

BRANCH = "release/v0.2.0"


def gate(project: Project, branch: str = BRANCH) -> int:
    return release_readiness.main(["--branch", branch, "--root", str(project.root)])


def faults(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_good_release_is_ready(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(project) == 0
    assert capsys.readouterr() == (f"release-readiness: {BRANCH}: ready\n", "")


def test_the_first_release_is_ready(project: Project) -> None:
    project.git("tag", "--delete", "v0.1.0")
    assert gate(project) == 0


def test_a_good_hotfix_is_ready(project: Project) -> None:
    project.git("switch", "--quiet", "--create", "hotfix/v0.1.1", "v0.1.0")
    project.git("checkout", "--quiet", BRANCH, "--", ".")
    project.write("ddq/__init__.py", '__version__ = "0.1.1"\n')
    for page in ("CHANGELOG.md", "DEVELOPMENT_LOG.md"):
        project.write(page, project.read(page).replace("0.2.0", "0.1.1"))
    project.commit("fix: wait at all")
    assert gate(project, "hotfix/v0.1.1") == 0


Fault = Callable[[Project], None]


def replace(path: str, old: str, new: str) -> Fault:
    return lambda project: project.replace(path, old, new)


def commit(message: str) -> Fault:
    return lambda project: project.commit(message)


def tag(name: str) -> Fault:
    def fault(project: Project) -> None:
        project.git("tag", "--annotate", name, "--message", name)

    return fault


def tag_elsewhere(name: str) -> Fault:
    """A hotfix was released from main and never merged back."""

    def fault(project: Project) -> None:
        project.git("switch", "--quiet", "main")
        project.commit("fix: something urgent")
        tag(name)(project)
        project.git("switch", "--quiet", BRANCH)

    return fault


def without_develop(project: Project) -> None:
    project.git("branch", "--quiet", "--delete", "--force", "develop")


def second_adr_with_number_two(project: Project) -> None:
    project.write("docs/adr/002-twice.md", "# ADR 002: twice\n\n- Status: Rejected\n")
    project.replace(
        "DEVELOPMENT_LOG.md",
        "| [003]",
        "| [002](docs/adr/002-twice.md) | Twice | Rejected | v0.3.0 |\n| [003]",
    )


def breaking_without_remedy(project: Project) -> None:
    project.commit("fix!: forget everything")


def all_of_the_index(project: Project) -> None:
    text = project.read("DEVELOPMENT_LOG.md")
    project.write("DEVELOPMENT_LOG.md", text.replace("## Working Agreements", "## Habits"))


FAULTS: dict[str, tuple[Fault, str]] = {
    # the version
    "behind the last tag": (tag("v0.3.0"), "0.2.0 is not newer than the last tag v0.3.0"),
    "the last tag again": (tag("v0.2.0"), "0.2.0 is not newer than the last tag v0.2.0"),
    "numbers are not compared as text": (tag("v0.10.0"), "not newer than the last tag v0.10.0"),
    "hotfix not merged back": (tag_elsewhere("v0.1.1"), "does not contain v0.1.1"),
    "package has another": (
        replace("ddq/__init__.py", "0.2.0", "0.1.0"),
        'set __version__ = "0.2.0" in ddq/__init__.py',
    ),
    "package has none": (
        replace("ddq/__init__.py", "__version__", "version"),
        "ddq/__init__.py has no line like",
    ),
    # the changelog
    "changelog without the release": (
        replace("CHANGELOG.md", "## [0.2.0] - 2026-02-02", "### More"),
        "run make changelog VERSION=v0.2.0",
    ),
    "changelog without a date": (
        replace("CHANGELOG.md", "[0.2.0] - 2026-02-02", "[0.2.0]"),
        "write it as '## [0.2.0] - YYYY-MM-DD'",
    ),
    "changelog with no day of the calendar": (
        replace("CHANGELOG.md", "2026-02-02", "2026-02-30"),
        "write it as '## [0.2.0] - YYYY-MM-DD'",
    ),
    "changelog says nothing": (
        replace(
            "CHANGELOG.md",
            "Upgrade one server at a time.\n\n<!-- commits -->\n### Added\n\n"
            "- **queue:** wait longer\n",
            "<!-- commits -->\n",
        ),
        "say there what users will notice",
    ),
    "changelog out of order": (
        replace("CHANGELOG.md", "## [0.1.0]", "## [0.3.0] - 2026-03-03\n\nx\n\n## [0.1.0]"),
        "not newest first",
    ),
    "changelog is missing": (lambda p: p.remove("CHANGELOG.md"), "CHANGELOG.md is missing"),
    # the log
    "log without the release": (
        replace("DEVELOPMENT_LOG.md", "### 2026-02-02 · v0.2.0: more", "### 2026-02-02: more"),
        "no heading of the Change Journal names v0.2.0",
    ),
    "log names a longer version": (
        replace("DEVELOPMENT_LOG.md", "· v0.2.0: more", "· v0.2.01: more"),
        "no heading of the Change Journal names v0.2.0",
    ),
    "milestone not reached": (
        replace("DEVELOPMENT_LOG.md", "- [x] **M1", "- [ ] **M1"),
        "is not ticked",
    ),
    "log without a section": (all_of_the_index, "no section '## Working Agreements'"),
    "log is missing": (lambda p: p.remove("DEVELOPMENT_LOG.md"), "DEVELOPMENT_LOG.md is missing"),
    # the decisions
    "ADR not in the index": (
        replace("DEVELOPMENT_LOG.md", "| [003](docs/adr/003-no-store.md) | No", "| 003 | No"),
        "not in the Decision Index: add the row '| [003](docs/adr/003-no-store.md) | what was",
    ),
    "index says another status": (
        replace("DEVELOPMENT_LOG.md", "No store | Draft", "No store | Accepted"),
        "write 'Draft' in the index",
    ),
    "status is none": (
        replace("docs/adr/003-no-store.md", "Status: Draft", "Status: Fine"),
        "has the status 'Fine': make it one of Draft, Accepted",
    ),
    "no status at all": (
        replace("docs/adr/003-no-store.md", "- Status: Draft\n", ""),
        "has no line '- Status: ...'",
    ),
    "number used twice": (second_adr_with_number_two, "has the number of docs/adr/002"),
    "cannot be confirmed": (
        replace("docs/adr/002-many-stores.md", "test_many_stores.", ""),
        "say there which test fails",
    ),
    "confirmed by a comment": (
        replace("docs/adr/002-many-stores.md", "test_many_stores.", "<!-- which test? -->"),
        "say there which test fails",
    ),
    "dead superseding link": (
        replace("docs/adr/001-one-store.md", "(002-many-stores.md)", "(002-gone.md)"),
        "docs/adr/001-one-store.md links to 002-gone.md, which does not exist",
    ),
    "superseded one-sidedly": (
        replace("docs/adr/002-many-stores.md", "- Supersedes: [ADR 001](001-one-store.md)\n", ""),
        "add '- Supersedes: [ADR 001](001-one-store.md)' there",
    ),
    "superseded by another number": (
        replace("docs/adr/001-one-store.md", "[ADR 002]", "[ADR 003]"),
        "ADR 003 supersedes it, but docs/adr/002-many-stores.md does not",
    ),
    "dead link in the changelog": (
        replace("CHANGELOG.md", "docs/adr/001-one-store.md", "docs/adr/001.md"),
        "CHANGELOG.md links to docs/adr/001.md, which does not exist",
    ),
    "Draft in the changelog": (
        replace("CHANGELOG.md", "Upgrade one", "Read ADR 003. Upgrade one"),
        "docs/adr/003-no-store.md is a Draft and this release refers to it",
    ),
    "Draft in the journal": (
        replace("DEVELOPMENT_LOG.md", "As [ADR 002]", "As ADR-003 and [ADR 002]"),
        "docs/adr/003-no-store.md is a Draft and this release refers to it",
    ),
    "Draft in the milestone": (
        replace("DEVELOPMENT_LOG.md", "more than one store.", "stores, docs/adr/003-no-store.md"),
        "docs/adr/003-no-store.md is a Draft and this release refers to it",
    ),
    "Draft in a commit": (
        commit("docs: follow ADR 003"),
        "docs/adr/003-no-store.md is a Draft and this release refers to it",
    ),
    # the commits
    "commit in no form": (commit("Fixed it"), "('Fixed it') is not a Conventional Commit: reword"),
    "breaking without remedy": (breaking_without_remedy, "add a line 'BREAKING CHANGE:"),
    "feature on the release branch": (commit("feat: one more"), "takes only what blocks"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_gives_one_line_that_says_what_to_do(
    fault: str, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    break_it, remedy = FAULTS[fault]
    break_it(project)
    assert gate(project) == 1
    (line,) = faults(capsys)
    assert line.startswith("release-readiness: ")
    assert remedy in line


def test_an_index_row_without_its_adr_is_named(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    # Two faults are one too many for the table: the row is a dead link as well.
    project.remove("docs/adr/003-no-store.md")
    assert gate(project) == 1
    assert any("the Decision Index names docs/adr/003-no-store.md" in f for f in faults(capsys))


@pytest.mark.parametrize(
    "branch",
    [
        "v0.2.0",
        "release/0.2.0",
        "release/v0.2",
        "release/v0.2.0.1",
        "release/v0.02.0",
        "release/v0.2.0-rc.1",
        "feature/v0.2.0",
        "releases/v0.2.0",
        "release/v0.2.0/more",
        "release/v0.2.0 ",
        "release/v1\u0660.2.0",
        "",
    ],
)
def test_a_branch_that_names_no_release_is_refused(
    branch: str, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate(project, branch) == 1
    (line,) = faults(capsys)
    assert "rename it to release/vX.Y.Z or hotfix/vX.Y.Z" in line


def test_a_hotfix_changes_only_the_last_number(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.git("switch", "--quiet", "--create", "hotfix/v0.2.0")
    project.git("branch", "--force", "main", "develop")
    assert gate(project, "hotfix/v0.2.0") == 1
    (line,) = faults(capsys)
    assert "rename the branch to hotfix/v0.1.1" in line


def test_a_hotfix_behind_the_last_tag_has_only_that_fault(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.git("branch", "--force", "main", "develop")
    project.replace("ddq/__init__.py", "0.2.0", "0.0.9")
    for page in ("CHANGELOG.md", "DEVELOPMENT_LOG.md"):
        project.write(page, project.read(page).replace("0.2.0", "0.0.9"))
    project.replace("CHANGELOG.md", "## [0.1.0] - 2026-01-01", "")
    assert gate(project, "hotfix/v0.0.9") == 1
    (line,) = faults(capsys)
    assert "0.0.9 is not newer than the last tag v0.1.0" in line


def test_the_last_tag_is_the_highest_and_not_the_last_in_the_alphabet(project: Project) -> None:
    project.git("tag", "v0.10.0")
    project.git("tag", "v0.9.0")
    project.git("tag", "v0.11.0-rc.1")
    project.git("tag", "nightly")
    assert [str(version) for version in Repo(project.root).released()] == [
        "0.1.0",
        "0.9.0",
        "0.10.0",
    ]


def test_a_hotfix_needs_a_release(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.git("tag", "--delete", "v0.1.0")
    project.git("branch", "--force", "main", "develop")
    assert gate(project, "hotfix/v0.2.0") == 1
    (line,) = faults(capsys)
    assert "there is no tag: use release/vX.Y.Z" in line


def test_without_develop_the_gate_says_what_it_did_not_look_at(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    without_develop(project)
    assert gate(project) == 0
    assert "note: there is no branch develop here" in capsys.readouterr().out


def test_outside_a_repository_it_says_so(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(project.root / ".git")
    assert gate(project) == 1
    (line,) = faults(capsys)
    assert "git tag failed" in line


def test_without_git_it_says_so(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(project.root))
    assert gate(project) == 1
    (line,) = faults(capsys)
    assert "git is not on the PATH; install it" in line


def test_documents_alone_need_no_branch_and_no_tags(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--documents", "--root", str(project.root)]
    assert release_readiness.main(arguments) == 0
    project.write("docs/adr/004-more.md", ADR_003.replace("003", "004"))
    assert release_readiness.main(arguments) == 1
    (line,) = faults(capsys)
    assert "docs/adr/004-more.md is not in the Decision Index" in line


def test_links_in_code_and_to_other_sites_are_left_alone(project: Project) -> None:
    project.replace(
        "docs/adr/002-many-stores.md",
        "None.",
        "`[a](gone.md)` [b](https://example.org/gone.md) [c](#confirmation)\n\n"
        "```md\n[d](gone.md)\n```\n",
    )
    assert gate(project) == 0
