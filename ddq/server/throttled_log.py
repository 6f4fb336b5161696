"""Log lines that callers can cause: one a minute of each kind, and the number of the rest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

INTERVAL_S = 60.0


class ThrottledLog:
    """Writes a line of each kind at most once in INTERVAL_S.

    Args:
        logger: where to.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._next_s: dict[Hashable, float] = {}
        self._left_out: dict[Hashable, int] = {}

    def warning(self, kind: Hashable, message: str, *args: object) -> None:
        """A warning; ``kind`` is of a set that callers cannot enlarge."""
        self._log(logging.WARNING, kind, message, args)

    def exception(self, kind: Hashable, message: str, *args: object) -> None:
        """An error, with the traceback of the exception that is being handled."""
        self._log(logging.ERROR, kind, message, args, exc_info=True)

    def _log(
        self,
        level: int,
        kind: Hashable,
        message: str,
        args: tuple[object, ...],
        *,
        exc_info: bool = False,
    ) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s < self._next_s.get(kind, float("-inf")):
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._next_s[kind] = now_s + INTERVAL_S
        left_out = self._left_out.pop(kind, 0)
        more = f" ({left_out} more like it since the last such line)" if left_out else ""
        self._logger.log(level, message + more, *args, exc_info=exc_info)


_CAUSED_BY_CLIENTS = {
    "Invalid encoding on": "a call had metadata that is not text",
    "ExecuteBatchError raised in core": "a client was gone before its call was answered",
}
"""The beginnings of what gRPC logs about clients, and what is said of it instead."""


class ClientFaultFilter(logging.Filter):
    """Replaces what gRPC logs about faults of clients by a line now and then.

    gRPC writes a traceback for each such call, and the value of broken metadata, which may be a
    secret.
    """

    def __init__(self, log: ThrottledLog) -> None:
        super().__init__()
        self._log = log

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether gRPC may write the record itself."""
        for beginning, line in _CAUSED_BY_CLIENTS.items():
            if str(record.msg).startswith(beginning):
                self._log.warning(beginning, line)
                return False
        return True


@contextmanager
def quiet_grpc() -> Iterator[None]:
    """Keeps gRPC from logging what callers send, until the block ends."""
    logger = logging.getLogger("grpc._cython.cygrpc")
    faults = ClientFaultFilter(ThrottledLog(logging.getLogger(__name__)))
    logger.addFilter(faults)
    try:
        yield
    finally:
        logger.removeFilter(faults)
