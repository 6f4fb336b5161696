"""The client as commands use it: it is connected, or the command ends at once."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

from ddq.client import Client


@contextlib.asynccontextmanager
async def connected(address: str, patience: timedelta) -> AsyncIterator[Client]:
    """A client whose server answers.

    A person who waits should hear at once that nobody is there, not at the end of the deadline.

    Raises:
        TransportError: nobody is there.
    """
    async with Client(address, timeout_s=patience.total_seconds()) as client:
        await client.connect()
        yield client
