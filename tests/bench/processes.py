"""The processes of a benchmark: each ends with the run, and its CPU time and memory can be read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import redis.asyncio

from ddq.child import launched
from ddq.store.binary import find_server

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 20.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A part of the benchmark failed; the message says which and how."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that no process listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@asynccontextmanager
async def running(
    command: Sequence[str],
    log: Path,
    *,
    port: int,
    env: Mapping[str, str] | None = None,
    says: str = "",
) -> AsyncIterator[int]:
    """A process that listens on a port; gives its pid and ends it.

    Args:
        says: what its log contains when it is ready, if that is later than it listens.

    Raises:
        BenchError: it does not listen within START_TIMEOUT_S; the message has the end of its log.
    """
    program = shutil.which(command[0])
    if program is None:
        raise BenchError(f"cannot run {command[0]}: not found")
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *launched([program, *command[1:]]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(env or {})},
        )
    try:
        await _listens(process, port, log, says)
        yield process.pid
    finally:
        await end(process)


async def _listens(process: asyncio.subprocess.Process, port: int, log: Path, says: str) -> None:
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            # A port has no event that another process could await.
            while not _said(log, says) or not await _accepts(port):
                if process.returncode is not None:
                    raise BenchError(f"a process ended at its start: {tail(log)}")
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise BenchError(f"nothing listens on port {port}: {tail(log)}") from None


def _said(log: Path, words: str) -> bool:
    return words in log.read_text(errors="replace")


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def end(process: asyncio.subprocess.Process) -> None:
    """Ends a process that is running: SIGTERM, and SIGKILL after STOP_TIMEOUT_S."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


@asynccontextmanager
async def store(folder: Path, *options: str) -> AsyncIterator[tuple[int, int]]:
    """An empty Valkey that writes its append-only file every second; gives its port and pid."""
    port = free_port()
    data = folder / f"store-{port}"
    data.mkdir()
    command = [
        str(find_server()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(data),
        "--save", "", "--appendonly", "yes", "--appendfsync", "everysec", *options,
    ]  # fmt: skip
    async with running(command, data / "log", port=port) as pid:
        yield port, pid


async def used_memory_bytes(port: int, host: str = "127.0.0.1") -> int:
    """``used_memory`` of a Valkey or Redis."""
    client = redis.asyncio.Redis(host=host, port=port)
    try:
        return int((await client.info("memory"))["used_memory"])
    finally:
        await client.aclose()


def resident_bytes(pid: int) -> int:
    """The resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def tail(log: Path) -> str:
    """The end of a log."""
    return log.read_text(errors="replace")[-500:]


def cpu_s(pid: int) -> float:
    """User and system time of a process and of all below it, in seconds."""
    parents: dict[int, list[int]] = {}
    used: dict[int, float] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name of a program may contain spaces and brackets.
            words = path.read_text().rpartition(")")[2].split()
            each = int(path.parent.name)
            parents.setdefault(int(words[1]), []).append(each)
            used[each] = sum(map(int, words[11:15])) / _TICKS_PER_S
    total, rest = 0.0, [pid]
    while rest:
        each = rest.pop()
        total += used.get(each, 0.0)
        rest += parents.get(each, [])
    return total
