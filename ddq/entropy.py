"""The one source of tokens, nonces, generated ids and jitter, and the one wall clock.

Both are injected: tests that replay a schedule give their own.
"""

from __future__ import annotations

import secrets
import time
import uuid
from typing import Protocol


class Entropy(Protocol):
    """Unguessable bytes and uniform numbers."""

    def token(self, size_bytes: int) -> bytes:
        """``size_bytes`` unpredictable bytes."""

    def random(self) -> float:
        """Uniform in [0, 1)."""


class Clock(Protocol):
    """This process's wall clock."""

    def now_ms(self) -> int:
        """Milliseconds since 1970."""


class SystemEntropy:
    """From the operating system."""

    def __init__(self) -> None:
        self._random = secrets.SystemRandom()

    def token(self, size_bytes: int) -> bytes:
        """``size_bytes`` unpredictable bytes."""
        return secrets.token_bytes(size_bytes)

    def random(self) -> float:
        """Uniform in [0, 1)."""
        return self._random.random()


class SystemClock:
    """From the operating system."""

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return time.time_ns() // 1_000_000


def uuid7(now_ms: int, entropy: Entropy) -> str:
    """A UUIDv7 (RFC 9562, 5.7): 48 bits of ms since 1970, then random bits."""
    random = entropy.token(10)
    value = bytearray(now_ms.to_bytes(6, "big") + random)
    value[6] = 0x70 | (value[6] & 0x0F)
    value[8] = 0x80 | (value[8] & 0x3F)
    return str(uuid.UUID(bytes=bytes(value)))
