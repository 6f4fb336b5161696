"""Writes a history while it happens, so that whatever ends the run leaves a usable prefix.

Events are numbered and timed when they happen and handed to the operating system at least every
0.2 s by a thread of its own: what was handed over survives a SIGKILL of the harness.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from chaos.history.operations import (
    Value,
)
from chaos.history.reader import Type

FLUSH_S = 0.1


class HistoryWriter:
    """One history file. May be used from any thread.

    Args:
        path: created, and emptied if it exists.
        start_ns: monotonic time that counts as 0; None: now.
    """

    def __init__(self, path: Path, *, start_ns: int | None = None) -> None:
        self._file = path.open("wb", buffering=0)
        self._start_ns = time.monotonic_ns() if start_ns is None else start_ns
        self._encode = msgspec.json.Encoder().encode
        self._buffer: list[bytes] = []
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._index = 0
        self._closing = threading.Event()
        self._error: OSError | None = None
        self._flusher = threading.Thread(target=self._flush_often, name="history", daemon=True)
        self._flusher.start()

    @property
    def events(self) -> int:
        """How many there are so far."""
        return self._index

    def now_ns(self) -> int:
        """The clock that the history is written by."""
        return time.monotonic_ns() - self._start_ns

    def event(
        self,
        process: str,
        kind: Type,
        op: str,
        *,
        request: Value | dict[str, Any] | None = None,
        reply: Value | dict[str, Any] | None = None,
    ) -> int:
        """Adds an event, now. Returns its index.

        Raises:
            OSError: an earlier event could not be written.
        """
        if self._error is not None:
            raise self._error
        with self._lock:
            # Number and time are taken together: lines are in the order of both.
            index = self._index
            self._index = index + 1
            event: dict[str, Any] = {
                "index": index,
                "time_ns": time.monotonic_ns() - self._start_ns,
                "process": process,
                "type": kind,
                "op": op,
            }
            if request is not None:
                event["request"] = request
            if reply is not None:
                event["reply"] = reply
            self._buffer.append(self._encode(event) + b"\n")
        return index

    def note(self, process: str, op: str, value: Value) -> int:
        """Adds an event that is not an operation, such as a fault, a role, a metric or a phase."""
        return self.event(process, "info", op, reply=value)

    def flush(self) -> None:
        """Hands over what there is."""
        with self._write_lock:
            with self._lock:
                taken, self._buffer = self._buffer, []
            rest = memoryview(b"".join(taken))
            while rest:
                rest = rest[self._file.write(rest) :]

    def _flush_often(self) -> None:
        while not self._closing.wait(FLUSH_S):
            try:
                self.flush()
            except OSError as error:
                # Raised when the next event is added: a run without a history proves nothing.
                self._error = error
                return

    def close(self) -> None:
        """Writes the rest; the history is whole then."""
        if self._file.closed:
            return
        self._closing.set()
        self._flusher.join()
        try:
            self.flush()
        finally:
            self._file.close()

    def __enter__(self) -> HistoryWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


__all__ = ["FLUSH_S", "HistoryWriter"]
