"""The lint finds retired words wherever a reader meets them, and nothing else."""

from __future__ import annotations

import pytest

from tools.words import ALLOWED, PHRASES, WORDS, findings, tracked


def found(text: str, path: str = "ddq/example.py") -> list[str]:
    return [finding.word for finding in findings(path, text)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("what the caller was told", ["told"]),
        ("def told_of(reply): ...", ["told"]),
        ("class ReadyBell:", ["Bell"]),
        ("LANE_MAX = 3", ["LANE"]),
        ("_lanes: int", ["lanes"]),
        ("the loop goes on.", ["goes on"]),
        ("goes on to the next shard", []),
        ("one script a transition", ["one script a transition"]),
        ("one script at a time", []),
        ("it is no address", ["is no address"]),
        ("there is no address", []),
        ("bytes that are no UTF-8, which was no fix", ["are no UTF", "was no fix"]),
        ("There are no Sentinels; the node is no longer a master", []),
        ("its lease is no older than 5 s and was no later", []),
        ("def test_what_is_lost() -> None:", ["def test_what_"]),
        ("the year, an early and clear reply", []),
        ("a plane, a planet, a labelled history", []),
        ("before anybody noticed, as everybody sees", ["anybody", "everybody"]),
        ("the node whom the Sentinels name", ["whom"]),
        ("ValueError: it is no such thing", ["is no such"]),
        ("there is no such topic", []),
        ("stats.stray_entries", []),
        ('    """Of a topic that is paused."""', ['"""Of a']),
        ('    """The topic that is paused."""', []),
        ("faults that hurt a node", ["hurt"]),
        ("stray entries, my_stray_entries", ["stray", "stray"]),
    ],
)
def test_a_retired_word_is_found_as_a_whole_word_or_part_of_a_name(
    text: str, words: list[str]
) -> None:
    assert found(text) == words


def test_each_word_and_phrase_can_be_found() -> None:
    for word in WORDS:
        assert word in found(f"x {word} y")
    assert len(PHRASES) == len({*PHRASES.values()}), "each phrase has a replacement of its own"


def test_an_allowed_file_and_word_are_skipped_and_no_other() -> None:
    for glob, key, reason in ALLOWED:
        assert key == "*" or key in WORDS or key in PHRASES
        assert reason
        path = glob.replace("*", "x")
        word = "told" if key == "*" else key
        assert word not in found(word, path)
        assert found("told", path + ".other.py") == ["told"]


def test_a_finding_names_file_line_and_replacement() -> None:
    (finding,) = findings("docs/X.md", "first\nit was told\n")
    assert str(finding) == f"docs/X.md:2: 'told': use {WORDS['told']}"


def test_the_subjects_of_commits_in_the_changelog_are_skipped() -> None:
    text = "told\n<!-- commits -->\n- told\n<!-- /commits -->\ntold\n"
    assert [finding.line for finding in findings("CHANGELOG.md", text)] == [1, 5]


def test_documents_scripts_and_workflows_are_checked_and_generated_code_is_not() -> None:
    paths = tracked()
    assert {"README.md", "Makefile", "ddq/store/jobstore.py", "pyproject.toml"} <= {*paths}
    assert any(path.endswith(".lua") for path in paths)
    assert not any(path.startswith("ddq/v1/") for path in paths)
