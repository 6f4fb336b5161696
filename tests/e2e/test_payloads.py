"""Real payloads, from files through `ddq enqueue` and `ddq work` to a command."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Dev, ddq

# Each of some hundred tasks starts a command, on a machine that may be busy with other things.
pytestmark = pytest.mark.timeout(900)

# Keeps what it is handed, in a file of its own for each delivery: a second one would show.
KEEP = """
import hashlib, os, pathlib, sys

payload = sys.stdin.buffer.read()
name = hashlib.sha256(os.environ["DDQ_ID"].encode()).hexdigest()
number = 0
while True:
    try:
        target = pathlib.Path(sys.argv[1]) / f"{name}.{number}"
        with target.open("xb") as file:
            file.write(payload)
        break
    except FileExistsError:
        number += 1
"""


def keeper(tmp_path: Path) -> tuple[str, Path]:
    """A command that keeps payloads, and the folder in which it does."""
    kept = tmp_path / "kept"
    kept.mkdir()
    script = tmp_path / "keep.py"
    script.write_text(KEEP)
    return shlex.join([sys.executable, "-S", str(script), str(kept)]), kept


def kept_once(kept: Path, task_id: str) -> bytes:
    """The payload that the command got for an id, which has to have come once."""
    name = hashlib.sha256(task_id.encode()).hexdigest()
    (only,) = kept.glob(f"{name}.*")
    return only.read_bytes()


def summary_of(output: bytes) -> dict[str, Any]:
    """The last line of `ddq work --json`."""
    document: dict[str, Any] = json.loads(output.splitlines()[-1])
    assert document.pop("event") == "summary"
    return document


def work(dev: Dev, topic: str, count: int, command: str) -> dict[str, Any]:
    """Lets `ddq work` hand each task to the command; its summary."""
    ran = ddq(dev, "work", topic, "--count", str(count), "-c", "8", "--json", "--exec", command)
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    tasks = [event for event in events if event["event"] == "task"]
    assert len(tasks) == count
    assert not any(event["early"] for event in tasks)
    for event in tasks:
        assert event["delivery_time"] >= event["due_time"]
        assert event["attempt"] == 1
    return summary_of(ran.stdout)


def test_the_webhooks_of_github_arrive_once_byte_for_byte_and_none_early(
    dev: Dev, webhooks: list[Any], tmp_path: Path
) -> None:
    sent: dict[str, bytes] = {}
    for event in webhooks:
        for number, example in enumerate(event["examples"]):
            path = tmp_path / "payloads" / event["name"] / f"{number}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(example, ensure_ascii=False, indent=number % 3))
            sent[f"{event['name']}/{number}.json"] = path.read_bytes()
    assert len(sent) > 150, "the package holds what it is known to hold"
    names = sorted({name.partition("/")[0] for name in sent})
    for i, name in enumerate(names):
        folder = str(tmp_path / "payloads" / name)
        delay = f"{500 + i * 37 % 2_000}ms"
        ddq(dev, "enqueue", "hooks", "--dir", folder, "--id-prefix", f"{name}/", "--delay", delay)
    command, kept = keeper(tmp_path)
    summary = work(dev, "hooks", len(sent), command)
    assert summary.pop("delivered") == len(sent)
    assert summary.pop("early") == 0
    assert summary.pop("acked") == len(sent)
    assert not any(summary.values()), summary
    for task_id, payload in sent.items():
        assert kept_once(kept, task_id) == payload
    assert len(list(kept.iterdir())) == len(sent)
    stats = json.loads(ddq(dev, "stats", "hooks", "--json").stdout)
    assert stats["counts"]["succeeded"] == len(sent)


def test_odd_payloads_arrive_as_they_were(dev: Dev, tmp_path: Path) -> None:
    odd = {
        "empty": b"",
        "one mebibyte": bytes(range(256)) * 4_096,
        "every byte": bytes(range(256)),
        "big number": b'{"n": 9007199254740993, "e": [], "o": {}, "f": 1.0}',
        "empty list": b"[]",
        "newlines": b"\n\r\n\n",
        "no utf-8": b"\xff\xfe\xed\xa0\x80",
        "nul": b"a\x00b",
    }
    folder = tmp_path / "odd"
    folder.mkdir()
    for name, payload in odd.items():
        (folder / name).write_bytes(payload)
        ddq(dev, "enqueue", "odd", "--file", str(folder / name), "--id", name, "--delay", "200ms")
    command, kept = keeper(tmp_path)
    assert work(dev, "odd", len(odd), command)["acked"] == len(odd)
    for name, payload in odd.items():
        assert kept_once(kept, name) == payload


def test_a_payload_from_stdin_comes_back_raw(dev: Dev) -> None:
    payload = bytes(range(256)) * 17
    ddq(dev, "enqueue", "pipe", "--file", "-", "--id", "a", stdin=payload)
    assert ddq(dev, "get", "pipe", "a", "--raw").stdout == payload
    assert ddq(dev, "work", "pipe", "--count", "1", "--raw").stdout == payload
