"""One of several processes, as its parent sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from ddq.processes.figures import Family, Snapshot
from ddq.processes.member import LINE_MAX_BYTES


class Child:
    """A process that was started.

    Attributes:
        number: of the place that it fills, from 1.
        info: what it said when it was ready; None until then.
        settled: set when it is ready, or has ended before.
        figures: the metrics that it sent last.
    """

    def __init__(
        self,
        number: int,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.number = number
        self.info: dict[str, Any] | None = None
        self.settled = asyncio.Event()
        self.figures: Snapshot = ()
        self.reasons: Mapping[str, str] = {}
        self.ready_s = 0.0
        self._process = process
        self._writer = writer
        self._shown = asyncio.Event()
        self._reading = asyncio.create_task(self._read(reader), name=f"ddq process {number}")

    @classmethod
    async def start(cls, command: Sequence[str], number: int, options: bytes) -> Child:
        """Starts a process; it is given its number and the descriptor of its connection.

        Args:
            options: its standard input. They are not on its command line, which every user of the
                machine can read: the store's password may be among them.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command, str(number), str(theirs.fileno()),
                    stdin=asyncio.subprocess.PIPE,
                    pass_fds=(theirs.fileno(),),
                    # Ctrl-C is for the parent, which passes it on: it would count twice.
                    start_new_session=True,
                )  # fmt: skip
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=LINE_MAX_BYTES)
        child = cls(number, process, reader, writer)
        assert process.stdin is not None
        process.stdin.write(options)
        process.stdin.close()
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, the negative number of the signal that killed it, or None."""
        return self._process.returncode

    async def ended(self) -> int:
        """Waits until it has ended, and has said everything; returns its exit status."""
        status = await self._process.wait()
        await asyncio.wait({self._reading})
        return status

    async def show(self) -> None:
        """Waits for its metrics and its health as they are now, or for its end."""
        self._shown.clear()
        self._writer.write(b'{"show": true}\n')
        await self._shown.wait()

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            with contextlib.suppress(OSError):
                while line := await reader.readline():
                    self._take(json.loads(line))
        finally:
            self.settled.set()
            self._shown.set()
            self._writer.close()

    def _take(self, document: dict[str, Any]) -> None:
        if "ready" in document:
            self.info = document["ready"]
            self.ready_s = asyncio.get_running_loop().time()
            self.settled.set()
        self.reasons = document.get("reasons", self.reasons)
        if "metrics" in document:
            self.figures = [
                Family(each["name"], each["kind"], each["doc"], each["samples"])
                for each in document["metrics"]
            ]
            self._shown.set()
