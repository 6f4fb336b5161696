"""The commands against a server."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from chaos.clusters.process import fakeclock
from ddq.store.keys import TOPICS_CONFIRMED
from ddq.store.records import FORMAT
from tests.cli.conftest import TIMEOUT_S, Cli, serving, spawn

SAVE = """
import os, sys, pathlib
target = pathlib.Path(sys.argv[1], os.environ["DDQ_ID"].replace("/", "_"))
target.write_bytes(sys.stdin.buffer.read())
"""

FAIL = """
import os, sys
print("no such", "address", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""

IDLE = ("--until-idle", "1s")


def python(script: str, *arguments: str) -> list[str]:
    return ["--", sys.executable, "-c", script, *arguments]


def alive(pid: int) -> bool:
    """Whether it runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def summary(documents: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [document for document in documents if document["event"] == "summary"]
    return {name: value for name, value in found.items() if value and name != "event"}


def test_an_upgrade_of_the_store_is_confirmed_before_and_after(cli: Cli, tmp_path: Path) -> None:
    with serving(tmp_path / "data"):
        store = f"unix://{tmp_path}/data/valkey.sock"
        unconfirmed = cli("store", "upgrade", "--store", store)
        assert unconfirmed.status != 0
        assert "Are all of them upgraded?" in unconfirmed.err
        client = redis.Redis(unix_socket_path=f"{tmp_path}/data/valkey.sock")
        assert client.hget(TOPICS_CONFIRMED, "format") is None
        assert "Allowed." in cli.ok("store", "upgrade", "--store", store, "--yes").out
        assert client.hget(TOPICS_CONFIRMED, "format") == str(FORMAT).encode()
        client.close()


def test_a_task_goes_in_and_comes_out(live: Cli, topic: str) -> None:
    (entry,) = live.ok(
        "enqueue", topic, "hello", "--delay", "1h", "--id", "a", "-H", "k=v=w", "--json"
    ).documents
    assert (entry["id"], entry["created"], entry["state"]) == ("a", True, "SCHEDULED")
    (listed,) = live.ok("list", topic, "--json").documents
    assert (listed["id"], "payload_base64" in listed) == ("a", False)
    got = live.ok("get", topic, "a", "--json", "--utf8").documents[0]
    assert (got["payload"], got["headers"], got["due_time"]) == (
        "hello",
        {"k": "v=w"},
        entry["due_time"],
    )
    # Listed and read first, however long these commands take to start; due only then.
    live.ok("reschedule", topic, "a", "--delay", "400ms")
    ran = live.ok("work", topic, "--count", "1", "--json")
    task, _ = ran.documents
    assert (task["id"], task["payload_base64"], task["early"]) == ("a", "aGVsbG8=", False)
    assert task["due_time"] <= task["delivery_time"]
    assert summary(ran.documents) == {"delivered": 1, "acked": 1}
    assert live.ok("get", topic, "a", "--json").documents[0]["state"] == "SUCCEEDED"


PAYLOADS = {
    "empty": b"",
    "one mebibyte": b"\x00\xff" * 524_288,
    "every byte": bytes(range(256)),
    "number.json": b'{"n": 9007199254740993, "list": []}',
    "lines\r\n": b"a\r\n\nb\r",
    "ünïcode": "ünïcode".encode(),
}


def test_files_arrive_byte_for_byte(live: Cli, topic: str, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    (source / "below").mkdir(parents=True)
    target.mkdir()
    for name, payload in PAYLOADS.items():
        if "\n" not in name:
            (source / "below" / name).write_bytes(payload)
    again = ["enqueue", topic, "--dir", str(source), "--id-prefix", "in/", "--delay", "300ms"]
    assert live.ok(*again).out == f"enqueued 5 tasks in {topic}\n"
    # The same command once more adds nothing.
    assert live.ok(*again).out == f"enqueued 0 tasks in {topic}; 5 tasks had been there\n"
    ran = live.ok("work", topic, *IDLE, "-c", "4", *python(SAVE, str(target)))
    assert "delivered 5: 5 acked; none early" in ran.err
    arrived = {path.name.removeprefix("in_below_"): path.read_bytes() for path in target.iterdir()}
    assert arrived == {name: data for name, data in PAYLOADS.items() if "\n" not in name}


def test_lines_of_stdin_are_tasks(live: Cli, topic: str) -> None:
    process = spawn("enqueue", topic, "--lines", "-", stdin=subprocess.PIPE)
    out, _ = process.communicate(b"one\ntwo\r\n\nlast", timeout=TIMEOUT_S)
    assert out.decode() == f"enqueued 4 tasks in {topic}\n"
    documents = live.ok("work", topic, *IDLE, "--json", "--utf8").documents
    payloads = sorted(document["payload"] for document in documents[:-1])
    assert payloads == ["", "last", "one", "two"]


def test_stdin_is_one_payload_and_raw_gives_it_back(live: Cli, topic: str) -> None:
    process = spawn("enqueue", topic, "--file", "-", stdin=subprocess.PIPE)
    process.communicate(PAYLOADS["every byte"], timeout=TIMEOUT_S)
    worker = spawn("work", topic, "--count", "1", "--raw")
    out, _ = worker.communicate(timeout=TIMEOUT_S)
    assert out == PAYLOADS["every byte"]


def test_bytes_of_the_command_line_stay_as_they_are(live: Cli, topic: str) -> None:
    process = spawn("enqueue", topic, os.fsdecode(b"\xff\xfe"), "--id", "a")
    process.communicate(timeout=TIMEOUT_S)
    assert live.ok("get", topic, "a", "--json", "--utf8").documents[0]["payload_base64"] == "//4="


def test_an_oversized_file_is_named_and_the_others_are_enqueued(
    live: Cli, topic: str, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(b"x" * 1_048_577)
    (tmp_path / "small").write_bytes(b"x")
    ran = live("enqueue", topic, "--dir", str(tmp_path))
    assert (ran.status, ran.out) == (2, f"enqueued 1 task in {topic}\n")
    assert ran.err.startswith("ddq: large: the payload is larger than 1048576")
    assert ran.err.count("\n") == 1


def test_conflicts(live: Cli, topic: str) -> None:
    live.ok("enqueue", topic, "x", "--id", "a", "--delay", "1h")
    same = live.ok("enqueue", topic, "x", "--id", "a", "--delay", "1h")
    assert "already" in same.out
    other = live("enqueue", topic, "y", "--id", "a", "--delay", "1h")
    assert (other.status, other.err.count("\n")) == (4, 1)
    live.ok(
        "enqueue", topic, "y", "--id", "a", "--delay", "1h", "--on-conflict", "replace-if-scheduled"
    )
    assert live.ok("get", topic, "a", "--json", "--utf8").documents[0]["payload"] == "y"


@pytest.mark.parametrize("status", [75, 1])
def test_a_command_that_fails_is_run_again_until_the_task_is_dead(
    status: int, live: Cli, topic: str
) -> None:
    live.ok("enqueue", topic, "x", "--id", "a", "--max-attempts", "2", "--initial-backoff", "100ms")
    ran = live.ok("work", topic, *IDLE, "--json", *python(FAIL, str(status)))
    assert summary(ran.documents) == {"delivered": 2, "nacked": 1, "dead": 1}
    assert [document.get("verdict") for document in ran.documents] == ["nacked", "dead", None]
    # What the command says is seen at once, and kept.
    assert ran.err == "no such address\n" * 2
    (dead,) = live.ok("dead", "list", topic, "--json", "--payloads").documents
    assert dead["last_error"].endswith(f"exit status {status}: no such address")
    assert dead["payload_base64"] == "eA=="
    live.ok("dead", "redrive", topic, "a")
    assert summary(live.ok("work", topic, *IDLE, "--json").documents) == {
        "delivered": 1,
        "acked": 1,
    }


def test_a_command_gets_its_task_in_its_environment(live: Cli, topic: str) -> None:
    live.ok("enqueue", topic, "x", "--id", "a", "-H", "subject=two words")
    script = "import os, json; print(json.dumps({k: v for k, v in os.environ.items()}))"
    ran = live.ok("work", topic, "--count", "1", *python(script))
    given = json.loads(ran.out)
    assert (given["DDQ_TOPIC"], given["DDQ_ID"], given["DDQ_ATTEMPT"]) == (topic, "a", "1")
    assert json.loads(given["DDQ_HEADERS"]) == {"subject": "two words"}
    assert given["DDQ_DUE_TIME"].startswith("20")


def test_output_of_a_command_does_not_mix_with_json(live: Cli, topic: str) -> None:
    live.ok("enqueue", topic, "said", "--id", "a")
    ran = live.ok("work", topic, "--count", "1", "--json", "--exec", "cat")
    assert summary(ran.documents) == {"delivered": 1, "acked": 1}
    assert ran.err == "said"


def test_a_command_need_not_read_its_input(live: Cli, topic: str, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 1_000_000)
    live.ok("enqueue", topic, "--file", str(tmp_path / "large"))
    ran = live.ok("work", topic, "--count", "1", "--exec", "true", "--json")
    assert summary(ran.documents) == {"delivered": 1, "acked": 1}


def test_a_command_may_leave_something_running(live: Cli, topic: str, tmp_path: Path) -> None:
    live.ok("enqueue", topic, "x")
    pid = tmp_path / "pid"
    ran = live.ok(
        "work", topic, "--count", "1", "--", "sh", "-c", f"sleep 1000 & echo $! > {pid}; exit 0"
    )
    try:
        assert "1 acked" in ran.err
        assert alive(int(pid.read_text()))
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)


def test_cancel(live: Cli, topic: str) -> None:
    live.ok("enqueue", topic, "x", "--id", "a", "--delay", "1h")
    assert live.ok("cancel", topic, "a").out == f"cancelled {topic}/a\n"
    assert "already" in live.ok("cancel", topic, "a").out
    ran = live("cancel", topic, "b", "a")
    assert (ran.status, ran.err.count("\n")) == (3, 1)
    assert "already" in ran.out
    live.ok("enqueue", topic, "x", "--id", "c")
    live.ok("work", topic, "--count", "1")
    late = live("cancel", topic, "c")
    assert (late.status, late.err.count("\n")) == (4, 1)


def test_reschedule(live: Cli, topic: str) -> None:
    live.ok("enqueue", topic, "x", "--id", "a", "--delay", "1h")
    live.ok("reschedule", topic, "a")
    assert "1 acked" in live.ok("work", topic, "--count", "1").err
    assert live("reschedule", topic, "a").status == 4
    assert live("reschedule", topic, "b").status == 3


def test_get_of_what_is_not_there(live: Cli, topic: str) -> None:
    ran = live("get", topic, "a")
    assert (ran.status, ran.out, ran.err.count("\n")) == (3, "", 1)
    live.ok("enqueue", topic, "x", "--id", "a")
    live.ok("work", topic, "--count", "1")
    assert live("get", topic, "a", "--raw").status == 3


def test_lists_are_cut_and_say_so(live: Cli, topic: str) -> None:
    for name in ("a", "b", "c"):
        live.ok("enqueue", topic, "x", "--id", name, "--delay", "1h")
    ran = live.ok("list", topic, "--limit", "2")
    assert len(ran.out.splitlines()) == 3
    assert "more" in ran.err
    assert live.ok("list", topic, "--limit", "3").err == ""
    assert len(live.ok("list", topic, "--limit", "0", "--json").documents) == 3


def test_tables_show_no_control_characters(live: Cli, topic: str) -> None:
    live.ok("enqueue", topic, "\x1b[31m[bold]red", "--id", "[bold]a", "--delay", "1h")
    out = live.ok("list", topic, "--payloads").out + live.ok("get", topic, "[bold]a").out
    assert "\x1b" not in out
    assert out.count("[bold]a") == 2
    assert "[31m[bold]red" in out


def test_events_of_one_id_are_debounced(live: Cli, topic: str) -> None:
    event = ("enqueue", topic, "--id", "a", "--on-conflict", "debounce", "--debounce-limit", "1h")
    first, second = (
        live.ok(*event, "--delay", delay, "--json", payload).documents[0]
        for payload, delay in (("one", "2m"), ("two", "9h"))
    )
    assert first["incarnation"] < second["incarnation"]
    (task,) = live.ok("get", topic, "a", "--json").documents
    assert task["due_time"] == second["due_time"] < "9999"
    assert task["create_time"] < task["due_time"]
    refused = live("enqueue", topic, "x", "--id", "a", "--debounce-limit", "1h")
    assert refused.status == 2
    assert "debounce_limit" in refused.err


def test_unlimited_attempts_of_a_task_and_of_a_topic(live: Cli, topic: str) -> None:
    live.ok("topics", "create", topic, "--max-attempts", "unlimited")
    assert "unlimited" in live.ok("topics", "get", topic).out
    live.ok("enqueue", topic, "x", "--id", "topics", "--delay", "1h")
    live.ok("enqueue", topic, "x", "--id", "own", "--delay", "1h", "--max-attempts", "3")
    live.ok("topics", "update", topic, "--max-attempts", "4")
    live.ok("enqueue", topic, "x", "--id", "asked", "--delay", "1h", "--max-attempts", "unlimited")
    shown = {name: live.ok("get", topic, name).out for name in ("topics", "own", "asked")}
    assert "0 of unlimited" in shown["topics"]
    assert "0 of 3" in shown["own"]
    assert "0 of unlimited" in shown["asked"]
    refused = live("enqueue", topic, "x", "--max-attempts", "endless")
    assert refused.status == 2
    assert "unlimited" in refused.err


def test_topics(live: Cli, topic: str) -> None:
    live.ok("topics", "create", topic, "--shards", "2", "--max-tasks", "5", "--max-attempts", "3")
    again = live.ok(
        "topics", "create", topic, "--shards", "2", "--max-tasks", "5", "--max-attempts", "3"
    )
    assert "already" in again.out
    assert live("topics", "create", topic, "--shards", "3").status == 4
    live.ok("topics", "update", topic, "--lease", "5s", "--jitter", "0")
    live.ok("topics", "update", topic, "--reset", "max_tasks")
    (found,) = live.ok("topics", "get", topic, "--json").documents
    settings = found["settings"]
    assert settings["default_lease_duration_s"] == 5.0
    assert settings["max_tasks"] == 0
    policy = settings["default_retry_policy"]
    assert (policy["max_attempts"], policy["jitter"], policy["max_backoff_s"]) == (3, 0.0, 600.0)
    live.ok("topics", "pause", topic)
    live.ok("enqueue", topic, "x")
    assert "delivered 0" in live.ok("work", topic, "--until-idle", "300ms").err
    assert live.ok("topics", "get", topic, "--json").documents[0]["paused"] is True
    live.ok("topics", "resume", topic)
    assert live.ok("topics", "purge", topic, "--yes", "--json").documents[0]["purged"] == 1
    live.ok("enqueue", topic, "x")
    assert topic in live.ok("topics", "list").out
    live.ok("topics", "delete", topic, "--yes")
    assert topic not in live.ok("topics", "list").out
    assert live("topics", "get", topic).status == 3
    assert live("topics", "delete", topic, "--yes").status == 3


def test_nothing_is_deleted_unasked(live: Cli, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    live.ok("enqueue", topic, "x", "--delay", "1h")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    for command in ("purge", "delete"):
        ran = live("topics", command, topic)
        assert (ran.status, ran.err.count("\n")) == (2, 1)
        assert "1 task" in ran.err
    assert live.ok("stats", topic, "--json").documents[0]["counts"]["scheduled"] == 1


def test_stats_add_up(live: Cli, topic: str) -> None:
    live.ok("enqueue", topic, "x", "--id", "a")
    live.ok("enqueue", topic, "x", "--id", "b", "--delay", "1h")
    live.ok("enqueue", topic, "x", "--id", "c", "--delay", "1h")
    live.ok("cancel", topic, "c")
    live.ok("work", topic, "--count", "1")
    (figures,) = live.ok("stats", topic, "--json").documents
    counts = figures["counts"]
    assert counts.pop("enqueued") == sum(counts.values()) == 3
    assert (counts["scheduled"], counts["succeeded"], counts["cancelled"]) == (1, 1, 1)
    assert figures["shards"][0]["next_due_time"].endswith("Z")
    assert topic in live.ok("stats").out
    assert live("stats", f"{topic}-not").status == 3


def test_dead_tasks_can_be_deleted(live: Cli, topic: str) -> None:
    live.ok("enqueue", topic, "x", "--id", "a", "--max-attempts", "1")
    live.ok("work", topic, "--count", "1", "--exec", "false")
    assert "a " in live.ok("dead", "list", topic).out
    live.ok("dead", "delete", topic, "a", "--yes")
    assert live.ok("dead", "list", topic, "--json").documents == []
    assert live("dead", "redrive", topic, "a").status in {3, 4}
    assert live.ok("dead", "redrive", topic, "--all", "--json").documents[0]["redriven"] == 0


def test_a_reader_that_goes_away_ends_it_quietly(live: Cli, topic: str) -> None:
    for number in range(3):
        live.ok("enqueue", topic, str(number) * 100_000, "--id", str(number))
    worker = spawn("work", topic)
    assert worker.stdout is not None
    assert worker.stderr is not None
    worker.stdout.read(10)
    worker.stdout.close()
    assert worker.wait(TIMEOUT_S) == 141
    assert worker.stderr.read() == b""
    worker.stderr.close()
    # A task that was not printed is still there for the next worker.
    assert "0 acked" not in live.ok("work", topic, *IDLE).err


def test_ctrl_c_lets_the_command_finish(live: Cli, topic: str, tmp_path: Path) -> None:
    started, may_end, done = (tmp_path / name for name in ("started", "may-end", "done"))
    os.mkfifo(started)
    os.mkfifo(may_end)
    script = (
        "import sys, pathlib\n"
        "a, b, c = map(pathlib.Path, sys.argv[1:])\n"
        "a.write_text('x'); b.read_text(); c.touch()"
    )
    live.ok("enqueue", topic, "x")
    live.ok("enqueue", topic, "y", "--delay", "1h")
    worker = spawn("work", topic, *python(script, str(started), str(may_end), str(done)))
    started.read_text()
    worker.send_signal(signal.SIGINT)
    may_end.write_text("x")
    _, err = worker.communicate(timeout=TIMEOUT_S)
    assert worker.returncode == 0
    assert done.exists()
    assert b"delivered 1: 1 acked" in err


def test_a_command_that_outlasts_the_grace_time_is_ended_and_its_task_released(
    live: Cli, topic: str, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    live.ok("enqueue", topic, "x", "--id", "a")
    # A shell with a child: the whole group has to go.
    script = f"sleep 1000 & echo $! > {started}; wait"
    worker = spawn("work", topic, "--grace", "100ms", "--", "sh", "-c", script)
    child = int(started.read_text())
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=TIMEOUT_S)
    assert worker.returncode == 0
    assert b"1 released" in err
    assert not alive(child)
    assert "1 acked" in live.ok("work", topic, "--count", "1").err


def test_a_command_that_runs_for_too_long_is_ended_and_has_failed(
    live: Cli, topic: str, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    live.ok("enqueue", topic, "x", "--id", "a", "--max-attempts", "1")
    script = f"sleep 1000 & echo $! > {started}; wait"
    worker = spawn("work", topic, "--max-run", "100ms", "-n", "1", "--", "sh", "-c", script)
    child = int(started.read_text())
    _, err = worker.communicate(timeout=TIMEOUT_S)
    assert b"delivered 1: 1 dead; none early" in err
    assert not alive(child)
    (found,) = live.ok("get", topic, "a", "--json").documents
    assert found["last_error"] == "the handler ran longer than max_run (100ms)"


def test_a_revoked_lease_ends_the_command(live: Cli, topic: str, tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    live.ok("enqueue", topic, "x", "--id", "a")
    script = f"sleep 1000 & echo $! > {started}; wait"
    worker = spawn("work", topic, "--lease", "300ms", "-n", "1", "--", "sh", "-c", script)
    child = int(started.read_text())
    assert live("cancel", topic, "a").status == 4
    live.ok("cancel", topic, "a", "--revoke-lease")
    _, err = worker.communicate(timeout=TIMEOUT_S)
    assert worker.returncode == 0
    assert b"delivered 1: 1 lost; none early" in err
    assert not alive(child)


def test_dev_finds_its_data_again(tmp_path: Path, cli: Cli) -> None:
    folder = tmp_path / "data"
    with serving(folder) as (address, process):
        cli.ok("enqueue", "mail", "x", "--id", "a", "--delay", "1h", "--address", address)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0
    with serving(folder) as (address, process):
        (found,) = cli.ok("list", "mail", "--json", "--address", address).documents
        assert found["id"] == "a"
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0


@pytest.mark.parametrize("offset_ms", [-30_000, 30_000, -3_600_000])
def test_a_worker_on_a_machine_with_a_wrong_clock_works_and_warns(
    offset_ms: int, live: Cli, topic: str, tmp_path: Path
) -> None:
    """It repeated without end, and --until-idle never ended."""
    preload = fakeclock.library()
    assert preload is not None, fakeclock.why_unavailable()
    clock = fakeclock.FakeClock(tmp_path / "offset", preload)
    clock.shift(offset_ms)
    environment = os.environ | clock.environment()
    enqueue = spawn("enqueue", topic, "x", env=environment)
    out, err = enqueue.communicate(timeout=TIMEOUT_S)
    assert (enqueue.returncode, out[:8]) == (0, b"enqueued"), err
    how = b"behind" if offset_ms < 0 else b"ahead of"
    assert how in err
    assert b"the store's" in err
    work = spawn("work", topic, *IDLE, env=environment)
    _, err = work.communicate(timeout=TIMEOUT_S)
    assert work.returncode == 0
    assert b"delivered 1: 1 acked; none early" in err


def test_a_topic_bounds_how_long_handlers_run(live: Cli, topic: str) -> None:
    live.ok("topics", "create", topic, "--max-run", "100ms", "--max-attempts", "1")
    assert "max run              100ms" in live.ok("topics", "get", topic).out
    live.ok("enqueue", topic, "x", "--id", "a")
    ran = live.ok("work", topic, "-n", "1", "--", "sleep", "1000")
    assert "delivered 1: 1 dead" in ran.err
    live.ok("topics", "update", topic, "--max-run", "0s")
    assert "max run              no bound" in live.ok("topics", "get", topic).out


def test_a_full_disk_fails_no_task(live: Cli, topic: str) -> None:
    live.ok("enqueue", topic, "x", "--id", "a", "--max-attempts", "1")
    with Path("/dev/full").open("wb") as full:
        work = spawn("work", topic, "-n", "1", stdout=full)
        _, err = work.communicate(timeout=TIMEOUT_S)
    assert work.returncode == 1
    assert b"No space left" in err
    assert b"1 released" in err
    (found,) = live.ok("get", topic, "a", "--json").documents
    assert (found["state"], found["attempt"]) == ("READY", 0)


def test_a_line_without_end_needs_little_memory(live: Cli, topic: str) -> None:
    process = spawn(
        "enqueue", topic, "--lines", "-", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stdin is not None
    assert process.stderr is not None
    block = bytes(1 << 20)
    for _ in range(300):
        process.stdin.write(block)
    process.stdin.write(b"\nlast\n")
    # It has read all but what is in the pipe, and waits for the end of the input. Not ru_maxrss:
    # that includes what this process had when it started the other one.
    known = Path(f"/proc/{process.pid}/status").read_text()
    (most_kb,) = map(int, re.findall(r"VmHWM:\s+(\d+) kB", known))
    process.stdin.close()
    with process.stderr as stderr:
        err = stderr.read()
    assert process.wait(TIMEOUT_S) == 2
    assert b"-:1: the payload is larger than" in err
    # An empty interpreter with gRPC takes 60 MB; all lines of the input were 653 MB.
    assert most_kb < 200_000
    assert live.ok("stats", topic, "--json").documents[0]["counts"]["enqueued"] == 1


def test_limits_and_times_are_said_for_people(live: Cli, topic: str) -> None:
    ran = live("enqueue", topic, "x", "--delay", "4000d")
    assert (ran.status, "is 4000d; give 0s to 3650d" in ran.err) == (2, True)
    ran = live("enqueue", topic, "x", "--at", "2300-01-01T00:00Z")
    assert (ran.status, "is more than 3650d ahead; give 20" in ran.err) == (2, True)
    ran = live.ok("enqueue", topic, "x", "--at", "2030-12-31T24:00Z", "--json")
    assert ran.documents[0]["due_time"] == "2031-01-01T00:00:00.000Z"
