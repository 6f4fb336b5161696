"""The documents say what the code says, and name nothing that is not there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ddq.config import LIMITS, UNLIMITED_ATTEMPTS, Limits
from ddq.store.keys import ROOTS
from tests.support.make_targets import make_targets
from tools import docs
from tools.documents import links
from tools.repo import ROOT, ToolError

PAGES = [ROOT / name for name in docs.PAGES]
ADRS = sorted(
    page for page in (ROOT / "docs/adr").glob("[0-9]*.md") if page.name != "000-template.md"
)
OTHERS = [ROOT / name for name in ("CONTRIBUTING.md", "DEVELOPMENT_LOG.md", "CHANGELOG.md")]
ALL = [*PAGES, *ADRS, *OTHERS, ROOT / "docs/adr/README.md"]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


# Generated parts ---------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_generated_parts_are_up_to_date(page: Path) -> None:
    text = page.read_text()
    assert docs.render(named(page), text) == text, "run: make gen"


def test_every_part_is_shown() -> None:
    shown = [name for page in PAGES for name in docs.names_in(page.read_text())]
    assert sorted(shown) == sorted(docs.PARTS)


def test_a_change_in_the_code_is_seen_in_the_page() -> None:
    text = "before\n<!-- generated: a -->\nold\n<!-- end -->\nafter\n"
    new = docs.render("page", text, {"a": lambda: "new\n"})
    assert new == "before\n<!-- generated: a -->\n\nnew\n\n<!-- end -->\nafter\n"
    assert docs.render("page", new, {"a": lambda: "new\n"}) == new


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<!-- generated: b -->\n<!-- end -->\n", "nothing generates 'b'; known are a"),
        ("<!-- generated: a -->\n", "is not closed"),
        ("<!-- generated: a-->\n<!-- end -->\n", "is not closed"),
    ],
)
def test_a_part_that_cannot_be_made_is_named(text: str, complaint: str) -> None:
    with pytest.raises(ToolError, match=complaint):
        docs.render("page", text, {"a": lambda: "new\n"})


def test_amounts_are_as_people_say_them() -> None:
    said = [
        docs.amount(name, value)
        for name, value in [
            ("a_ms", 100), ("a_ms", 30_000), ("a_ms", 90_000), ("a_ms", 86_400_000),
            ("a_bytes", 1_048_576), ("a_bytes", 16), ("a_count", 20_000), ("a", 0.1), ("a", True),
        ]
    ]  # fmt: skip
    assert said == [
        "100 ms", "30,000 ms (30 s)", "90,000 ms (90 s)", "86,400,000 ms (1 day)",
        "1,048,576 (1 MiB)", "16", "20,000", "0.1", "on",
    ]  # fmt: skip


def test_a_bar_does_not_end_a_cell() -> None:
    assert docs.table(["a"], [["x | y"]]) == "| a |\n| --- |\n| x \\| y |\n"


# What is written by hand -------------------------------------------------------------------


@pytest.mark.parametrize("page", ALL, ids=named)
def test_links_live(page: Path) -> None:
    for target in links(page.read_text()):
        assert (page.parent / target).exists(), target


def anchors(page: Path) -> set[str]:
    """The fragments that headings of a page give, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ALL, ids=named)
def test_links_to_headings_live(page: Path) -> None:
    for target, fragment in re.findall(r"\]\(([^)#:\s]*)#([^)\s]+)\)", page.read_text()):
        other = (page.parent / target) if target else page
        if other.suffix == ".md":
            assert fragment in anchors(other), f"{target}#{fragment}"


def named_tests(text: str) -> set[tuple[str, str]]:
    """(file, test) as in `tests/x/test_y.py::test_z`, and for `test_z` behind the file's name."""
    found: set[tuple[str, str]] = set()
    page = ""
    for path, separate, own in re.findall(
        r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`|`(test_\w+)`", text
    ):
        page = path or page
        if separate or own:
            found.add((page, separate or own))
    return found


@pytest.mark.parametrize("page", [*PAGES, *ADRS], ids=named)
def test_tests_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    for path in re.findall(r"`(tests/[\w/]+(?:\.py)?/?)[:`]", text):
        assert (ROOT / path).exists(), path
    for path, name in named_tests(text):
        assert re.search(rf"def {name}\(", (ROOT / path).read_text()), f"{path}::{name}"


def named_paths(text: str) -> list[str]:
    """The files and folders of the repository in backticks, except placeholders of names."""
    return [
        path
        for path in re.findall(r"`([\w.-]+(?:/[\w.-]+)*/?)`", text)
        if path.partition("/")[0] in TOP and "NNN" not in path
    ]


TOP = {"chaos", "ddq", "deploy", "docs", "models", "proto", "tests", "tools"}


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "README.md", "docs/ARCHITECTURE.md"])
def test_files_and_folders_that_are_named_exist(name: str) -> None:
    paths = [path for path in named_paths((ROOT / name).read_text()) if "/" in path]
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_names_behind_a_file_are_in_that_file() -> None:
    """In ARCHITECTURE's tables: `path.py`, `Class.method`."""
    text = (ROOT / "docs/ARCHITECTURE.md").read_text()
    named = re.findall(
        r"`([\w/]+\.py)`(?:,| \(| writes it \()\s?(?:class )?`(\w+)(?:\.(\w+))?`", text
    )
    assert len(named) >= 5
    for path, name, member in named:
        source = (ROOT / path).read_text()
        assert re.search(rf"(?:class|def) {name}\b", source), f"{path}: {name}"
        assert not member or re.search(rf"def {member}\b", source), f"{path}: {name}.{member}"


def test_each_change_in_contributing_names_its_files() -> None:
    _, _, rest = (ROOT / "CONTRIBUTING.md").read_text().partition("## Where do I change X\n")
    section, _, _ = rest.partition("\n## ")
    parts = re.split(r"^### (.+)$", section, flags=re.MULTILINE)[1:]
    changes = dict(zip(parts[::2], parts[1::2], strict=True))
    assert list(changes) == [
        "An RPC", "A transition (Lua script)", "A fault", "A promise and its checker",
        "A CLI command", "A setting", "A metric", "A line of the log",
    ]  # fmt: skip
    for change, text in changes.items():
        assert len({*named_paths(text)}) >= 3, change


@pytest.mark.parametrize("page", [page for page in ADRS if page.name[:3] != "002"], ids=named)
def test_each_decision_names_a_test_that_confirms_it(page: Path) -> None:
    _, _, confirmation = page.read_text().partition("### Confirmation\n")
    assert named_tests(confirmation)


def test_the_keys_in_the_page_are_those_of_the_code() -> None:
    page = (ROOT / "docs/ARCHITECTURE.md").read_text()
    rows = re.findall(r"^\| `ddq:(\w+):\{…\}` \| (\w+) \|", page, flags=re.MULTILINE)
    assert [root for root, _ in rows] == list(ROOTS)
    prelude = (ROOT / "ddq/store/lua/prelude/control.lua").read_text()
    declared = re.search(r"local KEY_TYPES = \{(.*?)\}", prelude, flags=re.DOTALL)
    assert declared is not None
    assert [kind for _, kind in rows] == re.findall(r"'(\w+)'", declared[1])


def test_every_make_target_that_is_named_exists() -> None:
    targets = make_targets()
    for page in ALL:
        for line in re.findall(r"(?:`|\$ )make ([a-z0-9-]+)", page.read_text()):
            assert line in targets, f"{named(page)}: make {line}"


def _test_commands() -> list[tuple[str, str]]:
    """The arguments of each `make test` in the documents, with the page."""
    return sorted(
        {
            (arguments, named(page))
            for page in ALL
            for arguments in re.findall(r"make test ARGS='([^']*)'", page.read_text())
        }
    )


@pytest.mark.parametrize(("arguments", "page"), _test_commands())
def test_a_command_of_the_documents_selects_tests(arguments: str, page: str) -> None:
    """A test that was renamed would leave its command without an effect.

    Each word of `-k` has to occur in a test file of the paths that are named; parametrized names
    count, so the text is searched and not the names of functions.
    """
    words = shlex.split(arguments)
    paths = [ROOT / word.partition("::")[0] for word in words if word.startswith("tests/")]
    paths = paths or [ROOT / "tests"]
    assert all(path.exists() for path in paths), f"{page}: {arguments}"
    files = [file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])]
    text = "\n".join(f"{file.name}\n{file.read_text()}" for file in files).lower()
    expression = words[words.index("-k") + 1] if "-k" in words else ""
    for name in re.findall(r"[\w-]+", expression):
        assert name in {"and", "or", "not"} or name.lower() in text, f"{page}: {arguments}: {name}"


def test_every_limit_in_the_protos_is_that_of_the_code() -> None:
    """A few that a reader of a proto will rely on."""
    protos = "".join(page.read_text() for page in sorted((ROOT / "proto/ddq/v1").glob("*.proto")))
    said = re.sub(r"\s*//\s*|\s+", " ", protos)
    assert isinstance(LIMITS, Limits)
    for words in [
        f"1 to {LIMITS.task_id_max_bytes} bytes of UTF-8",
        f"1 to {LIMITS.request_id_max_bytes} bytes",
        f"at most {LIMITS.payload_max_bytes >> 20} MiB",
        f"At most {LIMITS.headers_max_count} entries and {LIMITS.headers_max_bytes >> 10} KiB",
        f"1 to {LIMITS.topic_name_max_chars} characters",
        f"1 to {LIMITS.shards_max_count}; fixed at creation",
        f"1 to {LIMITS.batch_max_items:,}, payloads of at most {LIMITS.batch_max_bytes >> 20} MiB",
        f"1 to {LIMITS.retrieve_topics_max_count}; asked in turn",
        f"at most {LIMITS.retrieve_max_bytes >> 20} MiB; 0",
        f"{LIMITS.lease_min_ms} ms to {LIMITS.lease_max_ms // 3_600_000} h",
        f"0 to {LIMITS.retrieve_wait_max_ms // 1_000} s",
        f"cut to {LIMITS.error_max_bytes:,} bytes",
        f"1 to {LIMITS.max_attempts_max_count:,}. Default 5",
        f"{UNLIMITED_ATTEMPTS:,} (2^32 - 1): unlimited",
    ]:
        assert words in said, words


@pytest.mark.parametrize("page", ALL, ids=named)
def test_no_page_names_a_machine(page: Path) -> None:
    # The path of one user's checkout is wrong on every other machine.
    assert not re.search(r"(?<![\w/.])/(work|root|home|Users|tmp)/", page.read_text())
