"""What becomes of a copy of the process that a handler has forked."""

from __future__ import annotations

import os
import sys
import traceback


def end_fork(process: int, error: BaseException | None) -> None:
    """Ends this process if it is a fork of ``process``; otherwise does nothing.

    A handler that forks is left twice. The worker is in one of the two processes only: in the other
    one the handler's thread would wait for work, or the event loop for events, without end, and the
    handler that waits for its child with it.

    Args:
        process: the id of the worker's process.
        error: what came out of the handler, if anything did. It becomes the exit status as at the
            end of a program: the code of SystemExit, 1 for any other, 0 for none.
    """
    if os.getpid() == process:
        return
    status = 0
    try:
        if isinstance(error, SystemExit):
            status = _status_of(error)
        elif error is not None:
            status = 1
            traceback.print_exception(error)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        # Not by SystemExit: what the worker's process cleans up at its end is not this one's.
        os._exit(status)


def _status_of(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return 1
