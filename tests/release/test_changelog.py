"""How a version's section gets into CHANGELOG.md. What git-chglog itself does is in tests/e2e."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.release.conftest import Project
from tools import changelog
from tools.changelog import BEGIN, END, splice
from tools.repo import ToolError, Version

V2, V3 = Version(0, 2, 0), Version(0, 3, 0)
DATE = "2026-03-03"

START = """\
# Changelog

What users notice.

## [Unreleased]

Two words to those who upgrade.

## [0.1.0] - 2026-01-01

The first.
"""

FIRST = f"""\
# Changelog

What users notice.

## [Unreleased]

## [0.2.0] - 2026-03-03

Two words to those who upgrade.

{BEGIN}
### Added

- a
{END}

## [0.1.0] - 2026-01-01

The first.
"""


def test_the_first_run_takes_what_was_collected_under_unreleased() -> None:
    assert splice(START, V2, "### Added\n\n- a\n", DATE) == FIRST


def test_a_second_run_gives_the_same_bytes_whatever_the_day() -> None:
    assert splice(FIRST, V2, "### Added\n\n- a\n", "2030-01-01") == FIRST


def test_prose_on_both_sides_of_the_markers_survives_new_commits() -> None:
    written = FIRST.replace("Two words", "Three words").replace(END, END + "\n\nThanks, all.")
    after = splice(written, V2, "### Fixed\n\n- b", DATE)
    assert after == written.replace("### Added\n\n- a", "### Fixed\n\n- b")


def test_a_heading_without_a_date_gets_one() -> None:
    assert splice(FIRST.replace(" - 2026-03-03", ""), V2, "### Added\n\n- a", DATE) == FIRST
    broken = FIRST.replace("2026-03-03", "soon")
    assert splice(broken, V2, "### Added\n\n- a", DATE) == FIRST


def test_a_heading_written_by_hand_keeps_its_prose() -> None:
    by_hand = START.replace("## [0.1.0]", "## [0.2.0]\n\nBy hand.\n\n## [0.1.0]")
    after = splice(by_hand, V2, "### Added\n\n- a", DATE)
    assert f"## [0.2.0] - {DATE}\n\nBy hand.\n\n{BEGIN}\n### Added\n\n- a\n{END}\n" in after
    assert "## [Unreleased]\n\nTwo words" in after


def test_a_changelog_without_unreleased_gets_that_heading() -> None:
    text = "# Changelog\n\n## [0.1.0] - 2026-01-01\n\nx\n"
    assert splice(text, V2, "- a", DATE) == (
        f"# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - {DATE}\n\n{BEGIN}\n- a\n{END}\n\n"
        "## [0.1.0] - 2026-01-01\n\nx\n"
    )


def test_an_older_version_is_written_in_its_own_place() -> None:
    both = splice(FIRST, V3, "### Added\n\n- c", "2026-04-04")
    assert splice(both, V2, "### Added\n\n- a", DATE) == both
    assert both.index("[0.3.0]") < both.index("[0.2.0]") < both.index("[0.1.0]")


@pytest.mark.parametrize(
    "broken",
    [
        FIRST.replace(END, ""),
        FIRST.replace(BEGIN, ""),
        FIRST.replace(END, f"{END}\n{BEGIN}\n{END}"),
        FIRST.replace(BEGIN, "B").replace(END, BEGIN).replace("B\n", f"{END}\n"),
    ],
    ids=["no end", "no begin", "twice", "turned around"],
)
def test_broken_markers_lose_nothing(broken: str) -> None:
    with pytest.raises(ToolError, match=r"markers|put them in order") as error:
        splice(broken, V2, "- z", DATE)
    assert "\n" not in str(error.value)


# --- the command, with something in git-chglog's place --------------------------------------------


@pytest.fixture
def chglog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Answers with the arguments that it was given, in the form of a section."""
    program = tmp_path / "git-chglog"
    program.write_text('#!/bin/sh\nprintf "\\n## [0.2.0] - x\\n\\n- $TZ $*\\n"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(changelog, "find_chglog", lambda: str(program))
    return program


def run(project: Project, *arguments: str) -> int:
    return changelog.main([*arguments, "--root", str(project.root)])


def test_the_command_asks_for_the_next_version_and_writes_its_section(
    project: Project, chglog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(project, "v0.2.0", "--check") == 1
    assert "run: make changelog VERSION=v0.2.0" in capsys.readouterr().err
    assert run(project, "v0.2.0") == 0
    line = "- UTC --config .chglog/config.yml --next-tag v0.2.0 v0.2.0\n"
    first = project.read("CHANGELOG.md")
    assert f"## [0.2.0] - 2026-02-02\n\nUpgrade one server at a time.\n\n{BEGIN}\n{line}" in first

    assert run(project, "v0.2.0", "--check") == 0
    assert run(project, "v0.2.0") == 0
    assert project.read("CHANGELOG.md") == first


def test_the_date_is_the_last_commit_s(project: Project, chglog: Path) -> None:
    text = project.read("CHANGELOG.md")
    project.write("CHANGELOG.md", text.replace("[0.2.0] - 2026-02-02", "[0.2.0]"))
    assert run(project, "v0.2.0") == 0
    assert "## [0.2.0] - 2026-02-02\n" in project.read("CHANGELOG.md")


def test_a_released_version_is_asked_for_by_its_tag(project: Project, chglog: Path) -> None:
    project.git("tag", "--annotate", "v0.2.0", "--message", "v0.2.0")
    assert run(project, "v0.2.0") == 0
    assert "- UTC --config .chglog/config.yml v0.2.0\n" in project.read("CHANGELOG.md")


def test_the_preview_prints_and_writes_nothing(
    project: Project, chglog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = project.read("CHANGELOG.md")
    assert run(project, "v0.2.0", "--preview") == 0
    assert "--next-tag v0.2.0" in capsys.readouterr().out
    assert project.read("CHANGELOG.md") == before


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        ("0.2.0", "expected vX.Y.Z"),
        ("", "expected vX.Y.Z"),
        ("v0.2", "expected vX.Y.Z"),
        ("v0.0.9", "older than the last release v0.1.0"),
        ("v0.3.0", "instead of the section for 0.3.0"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    version: str,
    remedy: str,
    project: Project,
    chglog: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = project.read("CHANGELOG.md")
    assert run(project, version) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("changelog: ")
    assert remedy in line
    assert project.read("CHANGELOG.md") == before


def test_errors_of_git_chglog_are_passed_on(
    project: Project, chglog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chglog.write_text("#!/bin/sh\necho noise >&2\necho ' ERROR  no luck' >&2\nexit 1\n")
    os.utime(chglog)
    assert run(project, "v0.2.0") == 1
    assert capsys.readouterr().err == "changelog: git-chglog failed: ERROR  no luck\n"
