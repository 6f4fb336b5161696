"""The metrics port has the certificate and the access file of the gRPC port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ddq.access.certificates import CertificateFiles
from ddq.access.guard import Guard
from ddq.access.rules import METRICS
from ddq.config import Settings
from ddq.errors import Unauthenticated
from ddq.monitoring import PLAIN, Protection, Refusal

UNAUTHORIZED, FORBIDDEN = "401 Unauthorized", "403 Forbidden"


@asynccontextmanager
async def metrics_protection(settings: Settings, listen: str | None) -> AsyncIterator[Protection]:
    """What protects the metrics: TLS, and a token that may read every topic.

    Client certificates do not count here: a supervisor that asks for the health has none.

    Args:
        listen: where the metrics are; None: nowhere.

    Raises:
        StartupError: the certificate or the access file cannot be used.
    """
    if listen is None or settings.metrics_insecure:
        yield PLAIN
        return
    certificates, guard = CertificateFiles.of(settings), Guard.of(settings)
    context = certificates.anonymous_context if certificates is not None else None
    if guard is None:
        yield Protection(context)
        return
    follows = asyncio.create_task(guard.follow(), name="ddq access file of the metrics")
    try:
        yield Protection(context, lambda header: _refusal(guard, header))
    finally:
        follows.cancel()


def _refusal(guard: Guard, header: str | None) -> Refusal | None:
    error = guard.refusal_of_header(METRICS, header)
    if error is None:
        return None
    status = UNAUTHORIZED if isinstance(error, Unauthenticated) else FORBIDDEN
    return Refusal(status, error.message)
