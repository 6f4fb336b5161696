"""The one source of tokens, nonces, generated ids and jitter, and the one wall clock.

Both are injected: tests that replay a schedule give their own.
"""

from __future__ import annotations

import io
import os
import secrets
import time
from typing import Protocol

_POOL_BYTES = 4_096

_VERSION_AND_VARIANT = 7 << 76 | 0b10 << 62
_WITHOUT_VERSION_AND_VARIANT = ~(0xF << 76 | 0b11 << 62)


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


_pool = io.BytesIO()
"""Bytes of the operating system that no caller has got yet: a system call for each id of a batch
would take longer than everything else that is done about it."""


def _forget_pool() -> None:
    """A child would otherwise hand out the same bytes as its parent."""
    global _pool
    _pool = io.BytesIO()


os.register_at_fork(after_in_child=_forget_pool)


class SystemEntropy:
    """From the operating system."""

    def __init__(self) -> None:
        self._random = secrets.SystemRandom()

    def token(self, size_bytes: int) -> bytes:
        """``size_bytes`` unpredictable bytes. Threads may call it at the same time."""
        global _pool
        # One step of the interpreter, so that no other thread gets the same bytes.
        token = _pool.read(size_bytes)
        if len(token) < size_bytes:
            fresh = io.BytesIO(os.urandom(max(_POOL_BYTES, size_bytes)))
            token = fresh.read(size_bytes)
            _pool = fresh
        return token

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
    # By arithmetic on one number: a uuid.UUID takes four times as long, for each task.
    value = now_ms << 80 | int.from_bytes(entropy.token(10), "big")
    digits = f"{value & _WITHOUT_VERSION_AND_VARIANT | _VERSION_AND_VARIANT:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
