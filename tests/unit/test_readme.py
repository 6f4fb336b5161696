"""The README's examples are run as they stand, and print what it says they print."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.message import Message

from ddq.client import Client
from ddq.v1.task_pb2 import TaskState
from ddq.worker import Worker
from tests.support.server import RunningServer
from tools.repo import ROOT

README = (ROOT / "README.md").read_text()
ADDRESS = "127.0.0.1:50051"
TIMEOUT_S = 60.0


def examples(kind: str) -> list[str]:
    """The blocks that are marked as tested, in order."""
    return re.findall(rf"<!-- tested: {kind} -->\n```\w+\n(.*?)```\n", README, flags=re.DOTALL)


@asynccontextmanager
async def running(*command: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "120"} | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def output_of(*command: str, **environment: str) -> str:
    async with running(*command, **environment) as process:
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()


def without_accidents(text: str) -> list[str]:
    """Lines without ids, times and what aligns columns."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[ T][\d:.]+(Z|[+-]\d\d:\d\d)?", "<time>", text)
    text = re.sub(r"\(in [\d.]+s\)", "(in <span>)", text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def test_there_are_examples() -> None:
    assert [len(examples(kind)) for kind in ("shell", "python", "grpcurl")] == [1, 2, 1]


def test_the_snippets_are_short() -> None:
    for snippet in examples("python"):
        lines = [line for line in snippet.splitlines() if line.strip()]
        assert len(lines) <= 12
        assert max(map(len, lines)) <= 100


async def test_the_producer_and_the_worker(server: RunningServer) -> None:
    producer, worker = (snippet.replace(ADDRESS, server.address) for snippet in examples("python"))
    assert server.address in producer
    assert server.address in worker
    async with running(sys.executable, "-c", worker) as process:
        assert process.stdout is not None
        for _ in range(2):
            assert await output_of(sys.executable, "-c", producer) == "enqueued welcome-ada\n"
        assert await process.stdout.readline() == b"sending hello, Ada\n"
        process.send_signal(signal.SIGTERM)
        rest, _ = await process.communicate()
        assert (process.returncode, rest) == (0, b"")
    async with Client(server.address) as client:
        # The same id with the same content is not a second task.
        counts = (await client.stats("mail")).counts
        assert (counts.enqueued, counts.succeeded) == (1, 1)


MAX_RUN = "tests.client.test_max_run"
WORKERS = "tests.service.test_worker_processes"
EXECUTED_BY: dict[str, list[str]] = {
    "The same id with the same content is not a second task, so a producer that runs twice "
    "enqueues once.": [
        f"{__name__}:test_the_producer_and_the_worker",
    ],
    "The client repeats a request with the same ids until its outcome is known, and raises "
    "`OutcomeUnknown` if the time-out passes before that.": [
        "tests.client.test_repeat:test_a_repeat_is_the_same_request",
        "tests.client.test_repeat:test_after_an_unknown_attempt_an_error_says_nothing",
        "tests.client.test_repeat:test_an_unknown_outcome_at_the_deadline",
    ],
    "`SyncClient` has the same methods without `async`.": [
        "tests.client.test_sync:test_it_has_every_method_of_the_client",
        "tests.client.test_sync:test_methods_take_the_same",
        "tests.client.test_sync:test_calls_errors_and_pages",
    ],
    "A client belongs to the process that created it;": [
        "tests.service.test_python_page:test_a_client_of_another_process_says_so_at_once",
    ],
    "create it after a fork, not before.": [
        "tests.service.test_python_page:test_a_client_for_each_process_after_a_fork",
    ],
    "When a handler returns, its task is acknowledged;": [
        f"{__name__}:test_the_producer_and_the_worker",
        "tests.client.test_worker:test_a_return_acknowledges",
    ],
    "when it raises, the task is retried after a backoff, and after the last attempt it is dead.": [
        f"{WORKERS}:test_a_handler_that_raises_is_retried_after_its_backoff_until_the_task_is_dead",
    ],
    "A plain function may block: it runs in a thread.": [
        "tests.service.test_python_page:test_the_plain_handler",
        "tests.client.test_worker:test_plain_functions_run_beside_each_other",
    ],
    "An `async def` handler shares the event loop with all others and must not block;": [
        "tests.client.test_blocked_loop:test_a_warning_names_the_handler_and_the_line",
    ],
    "if it does, no lease is lost, and a warning names the handler.": [
        f"{WORKERS}:test_handlers_that_block_the_loop_finish_each_task_once",
        "tests.client.test_blocked_loop:test_a_warning_names_the_handler_and_the_line",
    ],
    "A handler that runs for longer than `max_run` has failed.": [
        f"{MAX_RUN}:test_an_async_handler_is_cancelled",
        f"{MAX_RUN}:test_a_plain_function_that_never_returns_ends_its_attempt_and_keeps_its_place",
    ],
    "SIGTERM and Ctrl-C stop the worker: handlers have 30 s to finish.": [
        f"{WORKERS}:test_a_signal_lets_the_handler_finish",
        f"{__name__}:test_the_grace_time_is_the_one_that_is_documented",
    ],
    "Unfinished tasks are ready for another worker at once, and the attempt is not counted.": [
        f"{WORKERS}:test_a_deployment_costs_no_attempt",
    ],
}
"""Each sentence below the Python examples, whole, and the tests that execute it."""


def test_each_sentence_about_python_is_executed() -> None:
    section = README[README.index("## From Python") : README.index("## From other languages")]
    found = re.findall(r"^- (.*(?:\n  .*)*)", section, re.MULTILINE)
    points = [" ".join(point.split()) for point in found]
    sentences = [part for point in points for part in re.split(r"(?<=[.;]) ", point)]
    assert sentences == list(EXECUTED_BY)
    for tests in EXECUTED_BY.values():
        for test in tests:
            module, _, name = test.partition(":")
            assert callable(getattr(importlib.import_module(module), name)), test


def test_the_grace_time_is_the_one_that_is_documented() -> None:
    grace = inspect.signature(Worker).parameters["grace"].default
    assert grace == timedelta(seconds=30)


async def test_the_shell_lines(server: RunningServer) -> None:
    (block,) = examples("shell")
    said: list[str] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            program, *arguments = shlex.split(line[2:])
            assert program == ".venv/bin/ddq"
            ddq = str(Path(sys.executable).parent / "ddq")
            output = await output_of(ddq, *arguments, DDQ_ADDRESS=server.address)
            said += [line, *output.splitlines()]
    assert without_accidents("\n".join(said)) == without_accidents(block)


def shape(value: Any) -> Any:
    """JSON with the type in the place of what differs from run to run."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    varies = isinstance(value, str) and re.search(r"^\d+$|^\d{4}-|=$", value)
    return "<varies>" if varies else value


async def test_the_grpcurl_line(server: RunningServer) -> None:
    """Sent as grpcurl sends it: JSON to the message that reflection names."""
    (block,) = examples("grpcurl")
    line, _, printed = block.partition("\n")
    words = shlex.split(line.removeprefix("$ "))
    assert words[:3] == ["grpcurl", "-plaintext", "-d"]
    assert words[4] == ADDRESS
    service, _, method = words[5].rpartition("/")
    pool = descriptor_pool.Default()
    described = pool.FindServiceByName(service).methods_by_name[method]
    request = json_format.Parse(words[3], message_factory.GetMessageClass(described.input_type)())
    reply: Message = await getattr(server.queue, method)(request)
    assert reply.result.state == TaskState.TASK_STATE_SCHEDULED  # type: ignore[attr-defined]
    seen = json_format.MessageToDict(reply, preserving_proto_field_name=True)
    assert shape(seen) == shape(json.loads(printed))
