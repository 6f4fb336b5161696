"""Hands the shared fixtures to every test."""

from __future__ import annotations

import signal

from tests import profiles
from tests.support.fixtures import (
    controlled_store,
    damaged_queue,
    open_store_here,
    queue,
    server,
    store_process,
    store_server,
)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has it ignored by what a script starts in the background, and so would the processes
    # that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = [
    "controlled_store",
    "damaged_queue",
    "open_store_here",
    "profiles",
    "queue",
    "server",
    "store_process",
    "store_server",
]
