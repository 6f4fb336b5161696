"""Processes in another locale, and in another time zone."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import TIMEOUT_S, Cli, Ran, spawn
from tests.support.places import latin_1, new_york

CYRILLIC = "Привет, мир"
ID = "имя"
ESCAPED_ID = b"\\u0438\\u043c\\u044f"


@pytest.fixture(params=["locale", "iso-8859-1:strict", "ascii:strict"])
def narrow(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of a process that cannot show Cyrillic."""
    if request.param == "locale":
        return latin_1(tmp_path)
    return {"PYTHONIOENCODING": request.param}


@pytest.fixture
def germany(tmp_path: Path) -> dict[str, str]:
    return latin_1(tmp_path)


@pytest.fixture
def america(tmp_path: Path) -> dict[str, str]:
    return new_york(tmp_path)


def run(environment: dict[str, str], *arguments: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
    """ddq in a process of its own: exit status, stdout, stderr."""
    process = spawn(*arguments, env=os.environ | environment, stdin=subprocess.PIPE)
    out, err = process.communicate(stdin, timeout=TIMEOUT_S)
    return process.returncode, out, err.decode("latin-1")


def test_output_that_the_locale_cannot_show_is_escaped(
    narrow: dict[str, str], live: Cli, topic: str
) -> None:
    """It failed the attempt, and with the last one the task was dead."""
    live.ok("enqueue", topic, CYRILLIC, "--id", ID, "--max-attempts", "1")
    status, out, err = run(narrow, "list", topic, "-s", "ready", "--payloads")
    assert (status, err) == (0, "")
    assert ESCAPED_ID in out
    status, out, err = run(narrow, "work", topic, "-n", "1")
    assert (status, "1 acked" in err) == (0, True), err
    assert out.startswith(topic.encode() + b"/" + ESCAPED_ID + b": \\u041f\\u0440")


def test_umlauts_are_shown_as_the_locale_writes_them(
    germany: dict[str, str], live: Cli, topic: str
) -> None:
    """And are read so from the command line: a task has one id, wherever it is typed."""
    live.ok("enqueue", topic, "Grüße", "--id", "Übung")
    status, out, _ = run(germany, "get", topic, os.fsdecode("Übung".encode("latin-1")))
    assert (status, "Übung".encode("latin-1") in out) == (0, True), out
    status, out, _ = run(germany, "work", topic, "-n", "1")
    assert (status, out) == (0, f"{topic}/Übung: Grüße\n".encode("latin-1"))


def test_a_command_gets_its_task_in_utf_8(germany: dict[str, str], live: Cli, topic: str) -> None:
    """The command was not started, and the attempt failed."""
    live.ok("enqueue", topic, CYRILLIC, "--id", ID, "-H", f"{ID}={ID}", "--max-attempts", "1")
    script = 'printf %s "$DDQ_ID"; cat; echo "нет" >&2'
    status, out, err = run(germany, "work", topic, "-n", "1", "--", "sh", "-c", script)
    assert (status, out.decode(), "1 acked" in err) == (0, ID + CYRILLIC, True), err


def test_errors_of_a_command_are_kept_in_any_locale(
    germany: dict[str, str], live: Cli, topic: str
) -> None:
    live.ok("enqueue", topic, "x", "--id", ID, "--max-attempts", "1")
    script = 'printf "нет" >&2; exit 3'
    status, _, err = run(germany, "work", topic, "-n", "1", "--", "sh", "-c", script)
    assert (status, "1 dead" in err) == (0, True), err
    (found,) = live.ok("get", topic, ID, "--json").documents
    assert found["last_error"] == "sh: exit status 3: нет"
    status, out, err = run(germany, "dead", "list", topic)
    assert (status, err, b"\\u043d\\u0435\\u0442" in out) == (0, "", True)


def test_lines_and_files_are_bytes_whatever_the_locale(
    germany: dict[str, str], live: Cli, topic: str, tmp_path: Path
) -> None:
    lines = f"{CYRILLIC}\n{ID}\n".encode() + b"\xff\xfe\n"
    status, out, err = run(germany, "enqueue", topic, "--lines", "-", stdin=lines)
    assert (status, out, err) == (0, f"enqueued 3 tasks in {topic}\n".encode(), "")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / ID).write_bytes(lines)
    status, out, err = run(germany, "enqueue", topic, "--dir", str(tmp_path / "files"))
    assert (status, out, err) == (0, f"enqueued 1 task in {topic}\n".encode(), "")
    status, out, _ = run(germany, "work", topic, "-n", "4", "--json")
    documents = Ran(status, out.decode("ascii"), "").documents
    payloads = [base64.b64decode(found["payload_base64"]) for found in documents[:-1]]
    assert sorted(payloads) == sorted([*lines.splitlines(), lines])


@pytest.mark.parametrize("command", [("enqueue", "x"), ("reschedule", "a")])
@pytest.mark.parametrize(
    ("time", "why"),
    [
        ("2027-03-14T02:30", "'2027-03-14T02:30' does not exist"),
        (
            "2027-11-07T01:30",
            "occurs twice, as 2027-11-07T01:30:00-04:00 and as 2027-11-07T01:30:00-05:00",
        ),
    ],
)
def test_a_time_that_is_no_moment_or_two_is_refused(
    time: str, why: str, command: tuple[str, str], america: dict[str, str], live: Cli, topic: str
) -> None:
    """It was due an hour before a task that was asked for an hour earlier."""
    live.ok("enqueue", topic, "x", "--id", "a", "--delay", "1h")
    name, argument = command
    status, out, err = run(america, name, topic, argument, "--at", time)
    assert (status, out, why in err) == (2, b"", True), err
    (found,) = live.ok("list", topic, "-s", "scheduled", "--json").documents
    assert (found["id"], found["revision"]) == ("a", found["incarnation"])


@pytest.mark.parametrize(
    ("given", "due", "printed"),
    [
        ("2027-03-14T01:59:59", "2027-03-14T06:59:59.000Z", "2027-03-14 01:59:59-05:00"),
        ("2027-03-14T03:00", "2027-03-14T07:00:00.000Z", "2027-03-14 03:00:00-04:00"),
        ("2027-03-14T02:30-05:00", "2027-03-14T07:30:00.000Z", "2027-03-14 03:30:00-04:00"),
        ("2027-11-07T01:30-04:00", "2027-11-07T05:30:00.000Z", "2027-11-07 01:30:00-04:00"),
        ("2027-11-07T01:30-05:00", "2027-11-07T06:30:00.000Z", "2027-11-07 01:30:00-05:00"),
        ("2027-11-06T24:00", "2027-11-07T04:00:00.000Z", "2027-11-07 00:00:00-04:00"),
    ],
)
def test_times_are_local_and_printed_with_their_offset(
    given: str, due: str, printed: str, america: dict[str, str], live: Cli, topic: str
) -> None:
    status, out, err = run(america, "enqueue", topic, "x", "--id", "a", "--at", given)
    assert (status, out.decode().startswith(f"enqueued {topic}/a, due {printed} (in ")) == (
        0,
        True,
    ), (out, err)
    (found,) = live.ok("get", topic, "a", "--json").documents
    assert found["due_time"] == due
    for command in (["get", topic, "a"], ["list", topic, "-s", "scheduled"]):
        status, out, _ = run(america, *command)
        assert (status, printed in out.decode()) == (0, True), out


@pytest.mark.parametrize("zone", ["Amerika/New_York", ":America/Springfield", "/no/such/zone"])
def test_a_local_time_of_an_unknown_zone_is_refused(
    zone: str, america: dict[str, str], live: Cli, topic: str
) -> None:
    """The C library takes it for UTC: it was due four hours earlier than in New York."""
    elsewhere = america | {"TZ": zone}
    status, out, err = run(elsewhere, "enqueue", topic, "x", "--at", "2027-06-01T08:00")
    assert (status, out) == (2, b"")
    assert f"does not know the time zone '{zone.removeprefix(':')}' that TZ names" in err
    status, _, err = run(elsewhere, "enqueue", topic, "x", "--at", "2027-06-01T08:00-04:00")
    assert (status, err) == (0, "")


@pytest.mark.parametrize(
    ("zone", "due"),
    [
        ("", "12:00:00"),
        ("UTC", "12:00:00"),
        ("UTC0", "12:00:00"),
        ("EST5EDT,M3.2.0,M11.1.0", "16:00:00"),
        ("<+03>-3", "09:00:00"),
        (":America/New_York", "16:00:00"),
    ],
)
def test_a_local_time_of_a_known_zone_is_read(
    zone: str, due: str, america: dict[str, str], live: Cli, topic: str
) -> None:
    there = america | {"TZ": zone}
    status, out, err = run(there, "enqueue", topic, "x", "--json", "--at", "2027-06-01T12:00")
    assert (status, err) == (0, "")
    (document,) = Ran(status, out.decode(), err).documents
    assert document["due_time"] == f"2027-06-01T{due}.000Z"
