"""From what gRPC reports to the tree of ddq.errors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from ddq import errors
from ddq.client.proxy import proxy_of
from ddq.errors import (
    BY_REASON,
    DOMAIN,
    DdqError,
    FieldViolation,
    NotConnected,
    TransportError,
)

# The published types do not say that metadata can be iterated.
_Pairs = Iterable[tuple[str, str | bytes]]

_DETAILS_KEY = "grpc-status-details-bin"

_FAMILY: dict[grpc.StatusCode, type[DdqError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgument,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: errors.FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.ResourceExhausted,
    grpc.StatusCode.ABORTED: errors.Aborted,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DATA_LOSS: errors.StoreMalformed,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unimplemented,
}
"""A reason that a newer server has made up still belongs to its code's family."""

_REFUSED_BY_TRANSPORT: dict[grpc.StatusCode, type[DdqError]] = {
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unimplemented,
}
"""Codes that mean the same without the server's word for it: the call never reached a handler."""

_REPEATABLE_BY_TRANSPORT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)
"""Not RESOURCE_EXHAUSTED: a message that is too large stays too large."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Failure:
    """How one attempt ended.

    Attributes:
        definite: this attempt certainly had no effect.
        repeatable: the same request may succeed if it is repeated.
        retry_delay_s: what the server asks to wait before that.
    """

    error: DdqError
    definite: bool
    repeatable: bool
    retry_delay_s: float | None = None


class AttemptFailedError(Exception):
    """Carries a Failure up to the code that decides about a repeat; never leaves the client."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure.error))
        self.failure = failure


_REMEDIES = (
    (
        "CERTIFICATE_VERIFY_FAILED",
        "its certificate is not trusted; check its authority (tls_ca) and its dates",
    ),
    (
        "Hostname Verification",
        "its certificate is for another name; connect to a name that it has",
    ),
    ("WRONG_VERSION_NUMBER", "it does not use TLS; leave the settings for TLS out"),
)
"""Words of gRPC, and what they mean."""


def _remedy(said: str, *, encrypted: bool) -> str | None:
    for words, remedy in _REMEDIES:
        if words in said:
            detail = said.partition(f"{words}: ")[2].removesuffix(": OK")
            return f"{remedy} ({detail})" if detail else remedy
    if "Socket closed" in said or "onnection reset" in said:
        missing = (
            "a certificate of the client (tls_cert, tls_key)" if encrypted else "TLS (tls, tls_ca)"
        )
        return f"it closed the connection at once; does it require {missing}?"
    return None


def not_connected(address: str, said: str = "", *, encrypted: bool = False) -> Failure:
    """There is no connection, so the request was not sent: definite, unlike gRPC's UNAVAILABLE.

    Args:
        said: why, in the words of gRPC.
        encrypted: whether the client uses TLS.
    """
    proxy = proxy_of(address)
    through = "; is a ddq server listening there?"
    if proxy is not None:
        through = (
            f" through the proxy {proxy.url}, which the environment variable {proxy.variable} "
            f"names; to go without it, name the host in {proxy.exception}"
        )
    elif remedy := _remedy(said, encrypted=encrypted):
        through = f": {remedy}"
    error = NotConnected(
        f"cannot connect to {address}{through}",
        metadata={"code": grpc.StatusCode.UNAVAILABLE.name},
    )
    return Failure(error, definite=True, repeatable=True)


def transport_failure(code: grpc.StatusCode, message: str) -> Failure:
    """A failure that carries no word of the server."""
    kind = _REFUSED_BY_TRANSPORT.get(code)
    if kind is not None:
        return Failure(kind(message), definite=kind.definite, repeatable=kind.repeatable)
    return Failure(
        TransportError(f"{code.name}: {message}", metadata={"code": code.name}),
        definite=False,
        repeatable=code in _REPEATABLE_BY_TRANSPORT,
    )


def failure_of_rpc_error(error: grpc.aio.AioRpcError) -> Failure:
    """From a call that ended with a status."""
    for key, value in cast("_Pairs", error.trailing_metadata() or ()):
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                continue
            if status.code == error.code().value[0]:
                return failure_of_status(status)
    return transport_failure(error.code(), error.details() or "no details")


def failure_of_status(status: status_pb2.Status) -> Failure:
    """From a status with details, of a call or of one item of a batch."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    bad = error_details_pb2.BadRequest()
    retry_delay_s = None
    for detail in status.details:
        # Unpack leaves its target alone and answers False for another type.
        detail.Unpack(info)
        detail.Unpack(bad)
        if detail.Unpack(retry):
            retry_delay_s = retry.retry_delay.ToTimedelta().total_seconds()
    if info.domain != DOMAIN:
        return transport_failure(code, status.message or "no details")
    kind = BY_REASON.get(info.reason)
    if kind is None or kind.code is not code:
        kind = _FAMILY.get(code)
    if kind is None:
        return transport_failure(code, f"{info.reason}: {status.message}")
    error = kind(
        status.message,
        metadata=dict(info.metadata),
        violations=tuple(
            FieldViolation(violation.field, violation.description)
            for violation in bad.field_violations
        ),
    )
    return Failure(
        error, definite=kind.definite, repeatable=kind.repeatable, retry_delay_s=retry_delay_s
    )
