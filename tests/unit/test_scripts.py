"""Scripts: each says what it does, and is put together as the loader promises."""

from __future__ import annotations

import hashlib
import re

import pytest

from ddq.store.keys import ROOTS
from ddq.store.scripts import PRELUDE, default_scripts, load_scripts, parse_script
from tools.docs import statuses
from tools.repo import ROOT

LUA = ROOT / "ddq" / "store" / "lua"
NAMES = sorted(default_scripts())
GOOD = "-- a: does it.\n-- flags: allow-oom\n-- argv: id\n-- returns: {status}\nreturn 1\n"
PARTS = {name: f"-- {name}\n" for name in ("clock", *PRELUDE)} | {
    "clock": "local function now_ms() return 1 end\n",
    "prelude/control": "-- Names.\nlocal A, B = 1, 2\nlocal C = {\n  B, -- A\n}\n",
    "prelude/records": "local function unused() return now_ms(), C end\n",
    "prelude/hints": "local function used()\n  return A\nend\n\n-- As before.\nlocal last = C\n",
}


def body(name: str) -> str:
    return (LUA / f"{name}.lua").read_text()


def code(text: str) -> str:
    """Without comments."""
    return re.sub(r"--.*", "", text)


@pytest.mark.parametrize("name", NAMES)
def test_every_script_says_what_it_does(name: str) -> None:
    script = default_scripts()[name]
    assert script.purpose.endswith(".")
    assert script.argv
    assert script.returns


@pytest.mark.parametrize("name", NAMES)
def test_every_status_that_a_script_answers_is_in_its_header(name: str) -> None:
    """Words in capitals between quotes are statuses; those of the prelude are its own."""
    # Commands with their options, and refusals of the whole call, are none.
    text = re.sub(r"\b(redis\.call|run|refuse)\('[A-Z_]+'", "", code(body(name)))
    words = set(re.findall(r"'([A-Z][A-Z_]+)'", text)) - {
        "WITHSCORES",
        "LIMIT",
        "MAXLEN",
        "PX",
        "COUNT",
    }
    assert words <= set(statuses(default_scripts()[name]))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"registry", "heartbeat"}])
def test_every_script_begins_with_the_checks_and_ends_with_a_write(name: str) -> None:
    """ADR 008: finish() advances the sequence, also for a script that only reads."""
    lines = [line for line in code(body(name)).splitlines() if line.strip()]
    assert lines[0].startswith("local refusal = begin(")
    assert lines[1] == "if refusal then return refusal end"
    last = [line for line in lines if line.startswith("return")][-1]
    assert last.startswith("return finish(")


READS_BOUNDED = ("has_read_enough(", "bytes > max_bytes", "state.token == token")
"""What a loop that reads tasks asks first: how much was read, how large the task is, or whether the
lease holds by which it once fitted into a reply."""


@pytest.mark.parametrize("name", [*NAMES, *PRELUDE])
def test_no_loop_reads_tasks_without_a_bound_in_bytes(name: str) -> None:
    """A task may be of 1 MiB, and only whole fields can be read."""
    loop = None
    for line in code(body(name)).splitlines():
        if re.match(r"\s*(for|while) ", line):
            loop = ""
        if loop is not None:
            loop += line
            if re.search(r"\b(load|examine)\(", line):
                assert any(bound in loop for bound in READS_BOUNDED), line
                loop = None


@pytest.mark.parametrize("name", [*NAMES, *PRELUDE])
def test_lists_that_a_script_unpacks_are_bounded(name: str) -> None:
    """Lua unpacks about 8,000 values, and fails beyond: that would end every such call."""
    known = {
        # As many as there are fields, counters, or names in one step.
        "fields", "stale",
        # The registry's arguments: a page of names.
        "ARGV", "ARGV, 10",
        # Records that are read together, one entry of the journal, and values of one command.
        "ids", "texts", "entry", "values, from, math.min(from + CHUNK - 1, count",
    }  # fmt: skip
    unpacked = set(re.findall(r"(?<!struct\.)\bunpack\(([^)]*)\)", code(body(name))))
    assert unpacked <= known, "say here why it is bounded"


@pytest.mark.parametrize("name", NAMES)
def test_only_what_adds_a_task_is_refused_by_a_full_store(name: str) -> None:
    script = default_scripts()[name]
    assert script.allow_oom is (name != "enqueue")
    assert script.source.startswith("#!lua flags=allow-oom\n" if script.allow_oom else "#!lua\n")


@pytest.mark.parametrize("name", NAMES)
def test_the_digest_is_of_what_is_sent(name: str) -> None:
    script = default_scripts()[name]
    digest = hashlib.sha1(script.source.encode(), usedforsecurity=False).hexdigest()
    assert script.sha1 == digest


@pytest.mark.parametrize("name", [*NAMES, *PRELUDE])
def test_no_script_names_a_key_or_asks_for_all_of_one(name: str) -> None:
    """Keys come in KEYS, and no script's work grows with the number of tasks."""
    text = code(body(name))
    if name != "registry":
        assert "'ddq:" not in text.replace("'ddq:hints'", "")
    # A scan that says how much of the key it looks at is a step.
    text = re.sub(r"'HSCAN', [\w.]+, \w+, 'COUNT'", "", text)
    assert not re.search(r"'(KEYS|SCAN|HSCAN|ZSCAN|HKEYS|HVALS|HGETALL|SMEMBERS|SORT)'", text)
    assert "cjson" not in text, "a payload that goes through JSON changes"
    assert not re.search(r"\bmath\.random\b|\bos\.", text), "chance and time come from outside"


def test_the_prelude_declares_the_keys_in_the_order_in_which_they_are_sent() -> None:
    declared = re.findall(r"(\w+) = KEYS\[(\d+)\]", body("prelude/control"))
    assert [name for name, _ in sorted(declared, key=lambda pair: int(pair[1]))] == list(ROOTS)


def test_the_clock_can_be_replaced_and_nothing_that_is_not_there() -> None:
    other = load_scripts({"clock": "local function now_ms() return 1 end\n"})
    assert all(
        other[name].source != script.source or name in {"heartbeat", "registry"}
        for name, script in default_scripts().items()
    )
    with pytest.raises(ValueError, match="no such script: clocks"):
        load_scripts({"clocks": ""})


def test_the_definitions_that_a_script_uses_go_before_it_in_their_order() -> None:
    script = parse_script("a", GOOD.replace("return 1", "return used()"), PARTS)
    definitions = "local A, B = 1, 2\nlocal function used()\n  return A\nend\n"
    assert script.source.startswith(f"#!lua flags=allow-oom\n{definitions}-- a: does it.")
    of_a_used_one = parse_script("a", GOOD.replace("return 1", "return last"), PARTS)
    assert "local A, B = 1, 2\nlocal C = {\n  B," in of_a_used_one.source
    assert "now_ms" not in of_a_used_one.source
    without = parse_script("a", GOOD.replace("-- flags", "-- prelude: clock\n-- flags"), PARTS)
    assert "local" not in without.source
    clock = GOOD.replace("-- flags", "-- prelude: clock\n-- flags")
    assert PARTS["clock"] in parse_script("a", clock.replace("return 1", "now_ms()"), PARTS).source


@pytest.mark.parametrize("name", PRELUDE)
def test_the_prelude_consists_of_definitions(name: str) -> None:
    """A statement between two of them would be left out together with the first."""
    text = code(body(name))
    starts = [line for line in text.splitlines() if line and not line.startswith((" ", "end", "}"))]
    assert all(line.startswith("local ") for line in starts)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"registry", "heartbeat"}])
def test_scripts_reach_tasks_only_through_what_knows_the_changes_to_come(name: str) -> None:
    """A command of its own would not see what the script has changed, and has yet to write."""
    assert re.findall(r"redis\.p?call\('\w+', (?!K\.control\b)", code(body(name))) == []


@pytest.mark.parametrize(
    "line", ["-- a: does it.", "-- flags: allow-oom", "-- argv: id", "-- returns: {status}"]
)
def test_a_header_that_lacks_a_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"lua/a\.lua needs a header"):
        parse_script("a", GOOD.replace(line + "\n", ""), PARTS)
