"""One task handed to a command: payload on stdin, the rest in the environment."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence

from ddq.worker import Job, Retry

STOP_TIMEOUT_S = 5.0
LINGER_S = 0.5
_TAIL_MAX_BYTES = 1_500


def environment(job: Job) -> Mapping[bytes, bytes]:
    """The environment of a command: this process's, and the task in UTF-8 whatever the locale.

    Python would encode it for the locale, and fail an attempt for an id that the locale lacks.
    """
    due_time = job.due_time
    task = {
        "DDQ_TOPIC": job.topic,
        "DDQ_ID": job.id,
        "DDQ_ATTEMPT": str(job.attempt),
        "DDQ_RUN": str(job.lease.task.run),
        "DDQ_DUE_TIME": due_time.isoformat() if due_time is not None else "",
        "DDQ_HEADERS": json.dumps(dict(job.headers)),
        "DDQ_LAST_ERROR": job.last_error.replace("\0", " "),
    }
    return os.environb | {name.encode(): value.encode() for name, value in task.items()}


async def run_command(command: Sequence[str], job: Job, *, stdout: int | None) -> None:
    """Runs a command for a task and returns when it exits with 0.

    Args:
        stdout: where its output goes, as for subprocess.

    Raises:
        Retry: it exited with anything else; the reason holds the end of what it said on stderr.
    """
    async with _ending() as (stderr, end_fd):
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=stdout,
                stderr=end_fd,
                env=environment(job),
                # A group of its own: Ctrl-C is for the worker, which lets it finish, and at the
                # end the whole group is stopped, not only a shell that started something.
                process_group=0,
            )
        finally:
            # Else the end never comes.
            os.close(end_fd)
        said = bytearray()
        try:
            async with asyncio.TaskGroup() as group:
                streams = [
                    group.create_task(_feed(process, job.payload)),
                    group.create_task(_pass_on(stderr, said)),
                ]
                status = await process.wait()
                # What it left running in the background may keep its stderr open for ever.
                await asyncio.wait(streams, timeout=LINGER_S)
                for stream in streams:
                    stream.cancel()
        finally:
            await _stop(process)
    if status != 0:
        words = said.decode(errors="replace").strip()
        how = f"exit status {status}" if status > 0 else f"ended by {signal.Signals(-status).name}"
        raise Retry(f"{command[0]}: {how}{': ' + words if words else ''}")


@contextlib.asynccontextmanager
async def _ending() -> AsyncIterator[tuple[asyncio.StreamReader, int]]:
    """A pipe: a reader here, and a descriptor for the command, to be closed once it has it.

    Not asyncio's own: that one cannot be closed while something in the background still has the
    other end, and its process would count as running until then.
    """
    read_fd, write_fd = os.pipe()
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_fd, "rb")
    )
    try:
        yield reader, write_fd
    finally:
        transport.close()


async def _feed(process: asyncio.subprocess.Process, payload: bytes) -> None:
    assert process.stdin is not None
    # A command need not read its input to the end, or at all.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(payload)
        await process.stdin.drain()
    process.stdin.close()


async def _pass_on(stderr: asyncio.StreamReader, said: bytearray) -> None:
    """Copies the command's stderr to ours, and keeps the end of it in ``said``."""
    while chunk := await stderr.read(65_536):
        with contextlib.suppress(OSError):
            sys.stderr.buffer.write(chunk)
            sys.stderr.buffer.flush()
        said += chunk
        del said[:-_TAIL_MAX_BYTES]


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Ends what is left of the command's group, politely first."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
