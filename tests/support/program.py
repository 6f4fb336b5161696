"""Python programs in processes of their own, that say on stdout how far they have come."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tools.repo import ROOT

TIMEOUT_S = 60.0


@asynccontextmanager
async def program(
    text: str, *arguments: str, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs ``text``; its stdout and stderr are pipes, stderr within stdout."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        text,
        *arguments,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
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


async def line_of(process: asyncio.subprocess.Process) -> str:
    """The next line that the program prints."""
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().rstrip("\n")


async def rest_of(process: asyncio.subprocess.Process) -> str:
    """All that is left of its output, once it has ended by itself with exit status 0."""
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()
