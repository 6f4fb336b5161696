"""Durations and moments as people read them: 90s, 1h30m, 250ms; 2030-01-31T08:00:00Z."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))


def span_text(span: timedelta) -> str:
    """``1h30m``, to the millisecond below ten seconds and to the second above."""
    total_ms = round(span.total_seconds() * 1_000)
    if total_ms < 0:
        return f"-{span_text(-span)}"
    if total_ms < 1_000:
        return f"{total_ms}ms"
    if total_ms < 10_000:
        return f"{total_ms / 1_000:g}s"
    left_s = total_ms // 1_000
    parts = []
    for unit, size_s in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, left_s = divmod(left_s, size_s)
        if count:
            parts.append(f"{count}{unit}")
    # Two parts say enough: 3d4h, not 3d4h12m55s.
    return "".join(parts[:2])


def exact_span_text(span_ms: int) -> str:
    """``1h30m250ms``: nothing left out, so that it can be typed again; ``0s`` for nothing."""
    if span_ms < 0:
        return f"-{exact_span_text(-span_ms)}"
    parts = []
    for unit, size_ms in _UNITS:
        count, span_ms = divmod(span_ms, size_ms)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def moment_text(ms: int) -> str:
    """Milliseconds since 1970 in ISO 8601, in UTC; as they are where no calendar has them."""
    try:
        moment = datetime.fromtimestamp(ms / 1_000, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms since 1970"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
