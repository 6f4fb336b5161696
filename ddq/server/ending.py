"""How a handler ends its call with an error."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import grpc
import grpc.aio
from grpc_status import rpc_status

from ddq.errors import DdqError
from ddq.server.status import to_status


async def abort(context: Any, error: DdqError) -> NoReturn:
    """Answers a call with an error and its details.

    Raises:
        AbortError: always; gRPC knows by it that the call has ended.
        CancelledError: the client is gone.
    """
    try:
        await context.abort_with_status(rpc_status.to_status(to_status(error)))
    except grpc.aio.InternalError:
        # gRPC would log that the status could not be sent, with a traceback for each such call.
        raise asyncio.CancelledError from None
    raise AssertionError("abort_with_status returned")


async def abort_with(context: Any, code: grpc.StatusCode, message: str) -> NoReturn:
    """Answers a call with a code and a message; raises as ``abort``."""
    try:
        await context.abort(code, message)
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None
    raise AssertionError("abort returned")
