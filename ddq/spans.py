"""Durations as people read them: 90s, 1h30m, 250ms."""

from __future__ import annotations

from datetime import timedelta


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
