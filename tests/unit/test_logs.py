"""The log: one event a line, with named fields, the request and the trace, and without secrets."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import use_span

import ddq
from ddq import logs, tracing
from ddq.logs import MASK, masked
from ddq.v1 import delay_queue_service_pb2 as pb

Configure = Callable[..., io.StringIO]


@pytest.fixture
def configure() -> Iterator[Configure]:
    """Configures the log of this process as a server does, and returns what is written to."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level

    def made(form: str = "json", **options: Any) -> io.StringIO:
        stream = io.StringIO()
        root.handlers.clear()
        logs.configure("info", form, stream=stream, **options)
        return stream

    yield made
    root.handlers[:] = before
    root.setLevel(level)
    logs.request.set(None)


log = logging.getLogger("ddq.example")


def test_an_event_is_one_document_with_its_named_arguments(configure: Configure) -> None:
    stream = configure(process=2)
    log.warning("%(node)s is skipped: %(error)s", {"node": "a:1", "error": ValueError("x\ny")})
    log.debug("left out")
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert datetime.fromisoformat(found.pop("timestamp")).tzinfo is not None
    assert found == {
        "event": "a:1 is skipped: x\ny",
        "level": "warning",
        "logger": "ddq.example",
        "process": 2,
        "node": "a:1",
        "error": "x\ny",
    }


def test_a_traceback_is_part_of_its_event(configure: Configure) -> None:
    stream = configure()
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        log.exception("%(method)s failed", {"method": "Ack"})
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert (found["event"], found["method"]) == ("Ack failed", "Ack")
    assert "Traceback" in found["exception"]


def test_lines_for_people_name_the_request(configure: Configure) -> None:
    stream = configure("console", process=1)
    log.info("%(node)s answers", {"node": "a:1"})
    logs.request.set(logs.Request("Ack", pb.BatchAckRequest(topic="mail")))
    log.info("one")
    log.info("two")
    plain, one, two = stream.getvalue().splitlines()
    assert re.fullmatch(r"\S+Z INFO process 1 ddq\.example: a:1 answers", plain)
    found = re.search(r"one \[rpc=Ack request_id=([0-9a-f]{32})\]$", one)
    assert found is not None
    assert two.endswith(f"two [rpc=Ack request_id={found[1]}]"), "it is the same request"


def test_an_event_names_its_request_and_its_trace(configure: Configure) -> None:
    stream = configure()
    tracing.enable(TracerProvider(shutdown_on_exit=False))
    try:
        request = pb.BatchEnqueueRequest(topic="mail", request_id="mine")
        logs.request.set(logs.Request("BatchEnqueue", request))
        span = TracerProvider(shutdown_on_exit=False).get_tracer("x").start_span("s")
        with use_span(span):
            log.info("x")
    finally:
        tracing.disable()
    found = json.loads(stream.getvalue())
    context = span.get_span_context()
    assert (found["rpc"], found["request_id"], found["topic"]) == ("BatchEnqueue", "mine", "mail")
    assert found["trace_id"] == f"{context.trace_id:032x}"
    assert found["span_id"] == f"{context.span_id:016x}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://user:pass@db:1/0", f"redis://user:{MASK}@db:1/0"),
        ("redis://:pass@db", f"redis://:{MASK}@db"),
        ("x?sentinel_password=pass&db=1", f"x?sentinel_password={MASK}&db=1"),
        ("authorization: Bearer abc.def", f"authorization: Bearer {MASK}"),
        ("token=abc, then", f"token={MASK}, then"),
        ("the lease token no longer holds", "the lease token no longer holds"),
        ("http://db:1/x@y", "http://db:1/x@y"),
    ],
)
def test_secrets_are_masked(text: str, shown: str, configure: Configure) -> None:
    assert masked(text) == shown
    for form in ("json", "console"):
        stream = configure(form)
        log.info("at %(where)s", {"where": text})
        try:
            raise ValueError(text)
        except ValueError:
            log.exception("failed")
        written = stream.getvalue()
        assert shown in written
        assert ("pass@" in written or "=pass" in written or "abc" in written) is False


def test_every_argument_of_a_line_has_a_name() -> None:
    """Positional ones would be no fields."""
    folder = Path(ddq.__file__).parent
    levels = {"debug", "info", "warning", "error", "critical", "exception"}
    loggers = {"log", "_log", "throttled", "self._log"}
    found = []
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in levels
                and ast.unparse(node.func.value) in loggers
            ):
                texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
                found += [
                    f"{path.relative_to(folder)}:{node.lineno}"
                    for text in texts
                    if isinstance(text, str) and re.search(r"%[^(%]", text)
                ]
    assert not found
