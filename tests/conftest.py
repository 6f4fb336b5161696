"""Hands the shared fixtures to every test."""

from __future__ import annotations

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
