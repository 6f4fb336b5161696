"""Errors as google.rpc.Status, the way they travel.

A status of a whole call goes into the trailers, of which clients take up to 8 KiB: a larger one
reaches them as the transport's RESOURCE_EXHAUSTED, from which nothing can be learned. So every text
is bounded here, whatever it echoes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from ddq.errors import DOMAIN, DdqError

MESSAGE_MAX_BYTES = 512
METADATA_MAX_BYTES = 1_024
"""Most bytes of all names and values together."""
METADATA_VALUE_MAX_BYTES = 256
"""An id fits."""
VIOLATIONS_MAX_BYTES = 1_536
"""Most bytes of all fields and descriptions together."""
_FIELD_MAX_BYTES = 128
_DESCRIPTION_MAX_BYTES = 256
_CUT = "…"

OK = status_pb2.Status(code=code_pb2.OK)


def to_status(error: DdqError) -> status_pb2.Status:
    """Code and message, with ErrorInfo, BadRequest and RetryInfo as they apply; all bounded."""
    metadata = dict(
        _bounded(
            error.metadata.items(), _FIELD_MAX_BYTES, METADATA_VALUE_MAX_BYTES, METADATA_MAX_BYTES
        )
    )
    violations = [
        error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
        for field, description in _bounded(
            ((violation.field, violation.description) for violation in error.violations),
            _FIELD_MAX_BYTES,
            _DESCRIPTION_MAX_BYTES,
            VIOLATIONS_MAX_BYTES,
        )
    ]
    details = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    extras: list[error_details_pb2.BadRequest | error_details_pb2.RetryInfo] = []
    if violations:
        extras.append(error_details_pb2.BadRequest(field_violations=violations))
    if error.retry_delay_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_delay_s * 1_000))
        extras.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(
        code=error.code.value[0], message=cut(error.message, MESSAGE_MAX_BYTES)
    )
    for detail in [*details, *extras]:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def cut(text: str, max_bytes: int) -> str:
    """The text, or its beginning in at most so many bytes of UTF-8."""
    data = text.encode(errors="replace")
    if len(data) <= max_bytes:
        return data.decode()
    return data[: max_bytes - len(_CUT.encode())].decode(errors="ignore") + _CUT


def _bounded(
    pairs: Iterable[tuple[str, str]], first_max_bytes: int, second_max_bytes: int, max_bytes: int
) -> Iterator[tuple[str, str]]:
    """The first pairs, each text cut, that are together at most ``max_bytes``."""
    left_bytes = max_bytes
    for first, second in pairs:
        pair = cut(first, first_max_bytes), cut(second, second_max_bytes)
        left_bytes -= len(pair[0].encode()) + len(pair[1].encode())
        if left_bytes < 0:
            return
        yield pair
