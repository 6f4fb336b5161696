"""Errors as google.rpc.Status, the way they travel."""

from __future__ import annotations

from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from ddq.errors import DOMAIN, DdqError

OK = status_pb2.Status(code=code_pb2.OK)


def to_status(error: DdqError) -> status_pb2.Status:
    """Code and message, with ErrorInfo, BadRequest and RetryInfo as they apply."""
    details = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    ]
    extras: list[error_details_pb2.BadRequest | error_details_pb2.RetryInfo] = []
    if error.violations:
        extras.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=violation.field, description=violation.description
                    )
                    for violation in error.violations
                ]
            )
        )
    if error.retry_delay_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_delay_s * 1_000))
        extras.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=error.code.value[0], message=error.message)
    for detail in [*details, *extras]:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status
