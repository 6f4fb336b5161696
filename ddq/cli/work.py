"""ddq work."""

from __future__ import annotations

import asyncio
import logging
import shlex
import shutil
import sys
from datetime import timedelta
from typing import Annotated, Any

import typer

from ddq.cli.access import with_access
from ddq.cli.command import run_command
from ddq.cli.connect import connected
from ddq.cli.exits import ExitCode, UsageError, complain, guarded, one_line
from ddq.cli.options import (
    DEFAULT_TIMEOUT,
    Address,
    Json,
    Timeout,
    Utf8,
    span_option,
)
from ddq.cli.output import emit, payload_fields, plain
from ddq.cli.signals import stopping
from ddq.client import Access
from ddq.config import DEFAULT_ADDRESS
from ddq.worker import Job, Verdict, Worker, WorkerStats

DEFAULT_LEASE = timedelta(seconds=30)
DEFAULT_GRACE = timedelta(seconds=30)


@with_access
def work(
    access: Access,
    ctx: typer.Context,
    topics: Annotated[
        list[str], typer.Argument(metavar="TOPIC...", help="1 to 16 topics.", show_default=False)
    ],
    execute: Annotated[
        str | None,
        typer.Option(
            "--exec",
            "-x",
            metavar="COMMAND",
            help="Run this for each task, split like a shell would; or put it behind --.",
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, help="Tasks at the same time.")
    ] = 1,
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="Stop after so many deliveries.")
    ] = None,
    until_idle: Annotated[
        timedelta | None, span_option("--until-idle", help="Stop when nothing was due for so long.")
    ] = None,
    lease: Annotated[
        timedelta,
        span_option(
            "--lease", help="How long a task is ours between heartbeats.", show_default="30s"
        ),
    ] = DEFAULT_LEASE,
    max_run: Annotated[
        timedelta | None,
        span_option(
            "--max-run", help="How long one task may run; then it is stopped, and has failed."
        ),
    ] = None,
    grace: Annotated[
        timedelta,
        span_option(
            "--grace",
            help="How long handlers may continue after Ctrl-C.",
            show_default="30s",
        ),
    ] = DEFAULT_GRACE,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print payloads as they are, nothing between them.")
    ] = False,
    as_json: Json = False,
    utf8: Utf8 = False,
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Take tasks as they become due, and print each or run a command for it.

    The command gets the payload on stdin and DDQ_TOPIC, DDQ_ID, DDQ_ATTEMPT, DDQ_RUN,
    DDQ_DUE_TIME, DDQ_HEADERS (JSON) and DDQ_LAST_ERROR in its environment, in UTF-8. Exit status 0
    acknowledges the task. Any other, for example 75 (EX_TEMPFAIL), ends the attempt: the task is
    tried again as its retry policy says, and is dead after the last attempt; the end of what the
    command said on stderr is kept as the task's last error.

        ddq work mail -- ./send-mail --from me@example.org

    Ctrl-C stops: what runs may finish, what has not started is handed back. A summary says what
    became of the deliveries; the exit status is 1 if any of them came before its due time.
    """
    command = _command(execute, ctx.obj)
    if max_run is not None and max_run <= timedelta(0):
        raise UsageError("--max-run has to be more than 0s")
    if raw and (as_json or command):
        raise UsageError("--raw is for printing payloads; leave out --json and the command")
    logging.basicConfig(level="WARNING", format="ddq: %(message)s", stream=sys.stderr)

    async def until_done() -> None:
        async with connected(address, timeout, access) as client:

            async def handle(job: Job) -> None:
                if command:
                    await run_command(command, job, stdout=sys.stderr.fileno() if as_json else None)
                    return
                try:
                    _print(job, raw=raw, as_json=as_json, utf8=utf8)
                except OSError as error:
                    # The reader is gone, or the disk is full: no fault of the task. Its attempt
                    # is handed back when this is cancelled, and does not count.
                    broken.append(error)
                    worker.stop(now=True)
                    await asyncio.Event().wait()

            def settled(job: Job, verdict: Verdict) -> None:
                if verdict in {Verdict.LOST, Verdict.UNKNOWN}:
                    complain(f"{job.topic}/{job.id}: {verdict.value}")
                if as_json and command:
                    emit({"event": "task", **_document(job), "verdict": verdict.value})

            broken: list[OSError] = []
            worker = Worker(
                client,
                topics,
                handle,
                concurrency=concurrency,
                lease=lease,
                max_run=max_run,
                grace=grace,
                max_jobs=count,
                stop_when_idle=until_idle,
                # Here a second one does not only end the grace time, but the command, as Ctrl-C.
                handle_signals=False,
                on_settled=settled,
            )
            try:
                with stopping(worker.stop):
                    await worker.run()
            finally:
                if not broken or not isinstance(broken[0], BrokenPipeError):
                    _summary(worker.stats, as_json=as_json)
            if broken:
                raise broken[0]
            if worker.stats.early:
                raise typer.Exit(ExitCode.FAILED)

    guarded(until_done())


def _command(execute: str | None, behind_dashes: list[str] | None) -> list[str]:
    if execute is None and not behind_dashes:
        return []
    if execute is not None and behind_dashes:
        raise UsageError("give the command with --exec or behind --, not both")
    try:
        command = behind_dashes or shlex.split(execute or "")
    except ValueError as error:
        raise UsageError(f"--exec {execute!r}: {error}") from None
    if not command:
        raise UsageError("--exec is empty")
    if shutil.which(command[0]) is None:
        raise UsageError(f"cannot run {command[0]!r}: not an executable file or a command on PATH")
    return command


def _document(job: Job) -> dict[str, Any]:
    return {
        "topic": job.topic,
        "id": job.id,
        "attempt": job.attempt,
        "run": job.lease.task.run,
        "headers": dict(job.headers),
        "due_time": plain(job.due_time),
        "delivery_time": plain(job.lease.receipt.store_time),
        "early": job.early,
        "payload_size_bytes": len(job.payload),
    }


def _print(job: Job, *, raw: bool, as_json: bool, utf8: bool) -> None:
    """Before the task is acknowledged: a line may be repeated, but is never left out."""
    if raw:
        sys.stdout.buffer.write(job.payload)
        sys.stdout.buffer.flush()
    elif as_json:
        emit({"event": "task", **_document(job), **payload_fields(job.payload, utf8=utf8)})
    else:
        text = one_line(job.payload.decode(errors="replace"))
        retry = f" (attempt {job.attempt})" if job.attempt > 1 else ""
        sys.stdout.write(f"{job.topic}/{job.id}{retry}: {text}\n")
        sys.stdout.flush()


def _summary(stats: WorkerStats, *, as_json: bool) -> None:
    verdicts = {verdict.value: count for verdict, count in stats.verdicts.items()}
    if as_json:
        emit({"event": "summary", "delivered": stats.delivered, "early": stats.early, **verdicts})
        return
    parts = ", ".join(f"{count} {name}" for name, count in verdicts.items() if count) or "nothing"
    early = f"{stats.early} EARLY" if stats.early else "none early"
    complain(f"delivered {stats.delivered}: {parts}; {early}")
