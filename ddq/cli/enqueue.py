"""ddq enqueue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ddq.cli.access import with_access
from ddq.cli.connect import connected
from ddq.cli.exits import ExitCode, UsageError, complain, exit_code, guarded
from ddq.cli.options import (
    DEFAULT_TIMEOUT,
    Address,
    At,
    Delay,
    InitialBackoff,
    Jitter,
    Json,
    MaxAttempts,
    MaxBackoff,
    Multiplier,
    Timeout,
    span_option,
)
from ddq.cli.output import emit, plain, say, tasks_text, when
from ddq.cli.sources import Source, from_file, from_folder, from_lines
from ddq.client import Access, Enqueued, ItemResult, NewTask, OnConflict, RetryPolicy
from ddq.config import DEFAULT_ADDRESS, LIMITS
from ddq.errors import DdqError


class Conflict(StrEnum):
    """What happens when the id is taken by other content."""

    FAIL = "fail"
    RETURN_EXISTING = "return-existing"
    REPLACE_IF_SCHEDULED = "replace-if-scheduled"
    REPLACE_IF_FINISHED = "replace-if-finished"
    DEBOUNCE = "debounce"


@with_access
def enqueue(
    access: Access,
    topic: Annotated[str, typer.Argument(help="The topic.", show_default=False)],
    payload: Annotated[
        str | None, typer.Argument(help="The payload as text.", show_default=False)
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            "-f",
            metavar="PATH",
            help="The payload is this file; - is stdin. Repeat it for more tasks.",
        ),
    ] = None,
    folder: Annotated[
        list[Path] | None,
        typer.Option("--dir", metavar="FOLDER", help="A task for each file below this folder."),
    ] = None,
    lines: Annotated[
        list[Path] | None,
        typer.Option(
            "--lines", metavar="PATH", help="A task for each line of this file; - is stdin."
        ),
    ] = None,
    skip_blank_lines: Annotated[
        bool,
        typer.Option("--skip-blank-lines", help="With --lines: none for lines of white space."),
    ] = False,
    delay: Delay = None,
    at: At = None,
    task_id: Annotated[
        str | None,
        typer.Option("--id", help="The task's id; without it a UUIDv7 is made."),
    ] = None,
    id_prefix: Annotated[
        str | None,
        typer.Option(
            "--id-prefix",
            help="Ids are this and the file's path (and line): the same command once more adds "
            "nothing twice.",
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="KEY=VALUE", help="May be repeated."),
    ] = None,
    on_conflict: Annotated[
        Conflict, typer.Option(help="When the id is taken by other content.")
    ] = Conflict.FAIL,
    expected_revision: Annotated[
        int | None,
        typer.Option(min=0, help="With a replacement: only if the task has this revision."),
    ] = None,
    debounce_limit: Annotated[
        timedelta | None,
        span_option(
            "--debounce-limit",
            help="With --on-conflict debounce: how long the task may be pushed back in all.",
        ),
    ] = None,
    max_attempts: MaxAttempts = None,
    initial_backoff: InitialBackoff = None,
    max_backoff: MaxBackoff = None,
    multiplier: Multiplier = None,
    jitter: Jitter = None,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Add tasks: one from the command line or stdin, or many from files.

    Many go out in batches. Each succeeds or fails by itself: those that fail are named on stderr,
    and the exit status is that of the first of them.

        ddq enqueue mail 'hello' --delay 90s

        ddq enqueue mail --dir ./payloads --id-prefix import-7/

        jq -c '.[]' events.json | ddq enqueue events --lines -
    """
    if skip_blank_lines and not lines:
        raise UsageError("--skip-blank-lines goes with --lines")
    sources = _sources(
        payload, file or [], folder or [], lines or [], skip_blank_lines=skip_blank_lines
    )
    single = payload is not None or (len(file or []) == 1 and not folder and not lines)
    if delay is not None and at is not None:
        raise UsageError("give --delay or --at, not both")
    if task_id is not None and (id_prefix is not None or not single):
        raise UsageError("--id is for one task; use --id-prefix for many")
    template = NewTask(
        headers=_headers(header or []),
        delay=delay,
        due=at,
        retry_policy=RetryPolicy(max_attempts, initial_backoff, max_backoff, multiplier, jitter),
        on_conflict=OnConflict[on_conflict.name],
        expected_revision=expected_revision,
        debounce_limit=debounce_limit,
    )
    report = _Report(topic, as_json=as_json, single=single)

    async def send() -> None:
        async with connected(address, timeout, access) as client:
            for batch in _batches(sources, report):
                tasks = [
                    replace(
                        template,
                        payload=source.payload or b"",
                        id=f"{id_prefix}{source.name}" if id_prefix is not None else task_id,
                    )
                    for source in batch
                ]
                try:
                    results = await client.enqueue_batch(topic, tasks)
                except DdqError:
                    report.cut_short()
                    raise
                for source, result in zip(batch, results, strict=True):
                    report.done(source, result)
        report.finish()

    guarded(send())


def _sources(
    payload: str | None,
    files: list[Path],
    folders: list[Path],
    lines: list[Path],
    *,
    skip_blank_lines: bool,
) -> Iterator[Source]:
    if payload is not None and (files or folders or lines):
        raise UsageError("give a payload or files, not both")
    if payload is None and not (files or folders or lines):
        raise UsageError(
            "give a payload ('' for an empty one), or --file, --dir or --lines; --file - is stdin"
        )
    if payload is not None:
        # Bytes that are not UTF-8 came in as surrogates and go out as they were.
        return iter([Source("payload", payload.encode(errors="surrogateescape"))])

    def each() -> Iterator[Source]:
        for path in files:
            yield from_file(path)
        for folder in folders:
            yield from from_folder(folder)
        for path in lines:
            yield from from_lines(path, skip_blank=skip_blank_lines)

    return each()


def _headers(given: list[str]) -> dict[str, str]:
    headers = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--header {pair!r} is not KEY=VALUE")
        if key in headers:
            raise UsageError(f"--header {key} is given twice")
        headers[key] = value
    return headers


class _Report:
    """Says what became of each payload, and at the end how many there were."""

    def __init__(self, topic: str, *, as_json: bool, single: bool) -> None:
        self._topic = topic
        self._json = as_json
        self._single = single
        self._created = 0
        self._existed = 0
        self._first_failure: ExitCode | None = None

    def done(self, source: Source, result: ItemResult[Enqueued]) -> None:
        if result.error is not None:
            self.failed(source.name, str(result.error), exit_code(result.error))
            return
        value = result.unwrap()
        self._created += value.created
        self._existed += not value.created
        if self._json:
            emit({"topic": self._topic, "source": source.name, **plain(value)})
        elif self._single:
            verb = "enqueued" if value.created else "was there already:"
            say(f"{verb} {self._topic}/{value.id}, due {when(value.due_time)}")

    def failed(self, name: str, message: str, code: ExitCode) -> None:
        complain(message if self._single else f"{name}: {message}")
        if self._first_failure is None:
            self._first_failure = code

    def cut_short(self) -> None:
        if not self._single:
            count = self._created + self._existed
            complain(f"{tasks_text(count)} went in; then came this:")

    def finish(self) -> None:
        if not self._json and not self._single:
            existed = f"; {tasks_text(self._existed)} had been there" if self._existed else ""
            say(f"enqueued {tasks_text(self._created)} in {self._topic}{existed}")
        if self._first_failure is not None:
            raise typer.Exit(self._first_failure)


def _batches(sources: Iterator[Source], report: _Report) -> Iterator[list[Source]]:
    """As much at once as one request takes, so that any number of files needs little memory."""
    batch: list[Source] = []
    size_bytes = 0
    for source in sources:
        if source.payload is None:
            limit = LIMITS.payload_max_bytes
            report.failed(source.name, f"the payload is larger than {limit} bytes", ExitCode.USAGE)
            continue
        full = (
            len(batch) == LIMITS.batch_max_items
            or size_bytes + len(source.payload) > LIMITS.batch_max_bytes
        )
        if batch and full:
            yield batch
            batch, size_bytes = [], 0
        batch.append(source)
        size_bytes += len(source.payload)
    if batch:
        yield batch
