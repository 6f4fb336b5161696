"""A client works in the process that made it, and in no copy of that process.

gRPC has threads, and a fork copies none of them: in a child of a process that had a client, calls
hang or crash, whichever client makes them (measured with grpcio 1.85: a new client of the child
gets no connection, and after the parent's client was closed the child ends by SIGSEGV).
"""

from __future__ import annotations

import os

REMEDY = (
    "make the first client after the fork, in each process by itself (with gunicorn in post_fork, "
    "with Celery in worker_process_init), or start processes with multiprocessing's 'spawn'"
)

_here = os.getpid()
"""This process; kept because it is needed for each attempt, and asking takes a system call."""
_first: int | None = None
"""The process that made the first client; a fork copies it."""


def _note_fork() -> None:
    global _here
    _here = os.getpid()


os.register_at_fork(after_in_child=_note_fork)


class WrongProcessError(RuntimeError):
    """A client was used, or made, in a fork of a process that had made one; nothing was sent."""


def claim_process() -> int:
    """For a new client: the id of this process.

    Raises:
        WrongProcessError: this is a fork of a process that had made a client.
    """
    global _first
    if _first is None:
        _first = _here
    elif _first != _here:
        raise WrongProcessError(
            f"process {_here} is a fork of process {_first}, which had made a ddq client before, "
            f"and gRPC does not work in such a fork: {REMEDY}"
        )
    return _here


def check_process(maker: int) -> None:
    """For a client of process ``maker``.

    Raises:
        WrongProcessError: this is another process.
    """
    if _here != maker:
        raise WrongProcessError(
            f"this client was made in process {maker} and does not work in process {_here}, which "
            f"is a fork of it: {REMEDY}"
        )
