"""Generated ids are UUIDv7: they carry their time, and sort by it."""

from __future__ import annotations

import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from ddq.entropy import SystemClock, SystemEntropy, uuid7

MOMENTS = st.integers(0, 2**48 - 1)


class Fixed:
    """Entropy that gives one byte, over and over."""

    def __init__(self, byte: int) -> None:
        self._byte = byte

    def token(self, size_bytes: int) -> bytes:
        """That byte."""
        return bytes([self._byte]) * size_bytes

    def random(self) -> float:
        """Not asked for."""
        raise AssertionError


def test_the_example_of_the_rfc() -> None:
    # RFC 9562, appendix A.6: 2022-02-22 19:22:22 UTC.
    assert uuid7(0x017F22E279B0, Fixed(0xFF)) == "017f22e2-79b0-7fff-bfff-ffffffffffff"
    assert uuid7(0x017F22E279B0, Fixed(0)) == "017f22e2-79b0-7000-8000-000000000000"


@given(MOMENTS, st.integers(0, 255))
def test_version_variant_and_time(now_ms: int, byte: int) -> None:
    made = uuid.UUID(uuid7(now_ms, Fixed(byte)))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert int.from_bytes(made.bytes[:6], "big") == now_ms


@given(MOMENTS, MOMENTS)
def test_ids_sort_by_their_time(one_ms: int, other_ms: int) -> None:
    if one_ms < other_ms:
        assert uuid7(one_ms, Fixed(0xFF)) < uuid7(other_ms, Fixed(0))


def test_two_ids_of_one_moment_differ() -> None:
    entropy, now_ms = SystemEntropy(), SystemClock().now_ms()
    assert len({uuid7(now_ms, entropy) for _ in range(100)}) == 100


def test_random_is_in_range() -> None:
    entropy = SystemEntropy()
    assert all(0 <= entropy.random() < 1 for _ in range(100))
    assert len(entropy.token(16)) == 16


def test_tokens_have_the_size_that_is_asked_for_and_never_repeat() -> None:
    entropy = SystemEntropy()
    sizes = [1, 10, 16, 4_095, 4_096, 4_097, 10_000, 16]
    tokens = [entropy.token(size) for size in sizes for _ in range(3)]
    assert [len(token) for token in tokens] == [size for size in sizes for _ in range(3)]
    long = [token for token in tokens if len(token) >= 10]
    assert len(set(long)) == len(long)


def test_threads_get_different_tokens() -> None:
    entropy = SystemEntropy()
    with ThreadPoolExecutor(8) as threads:
        tokens = list(threads.map(lambda _: entropy.token(16), range(20_000)))
    assert len(set(tokens)) == len(tokens)


FORK = """
import os
from ddq.entropy import SystemEntropy

entropy = SystemEntropy()
entropy.token(1)  # so that there are bytes left, which the child inherits
if child := os.fork():
    os.waitpid(child, 0)
print(entropy.token(16).hex())
"""


def test_a_fork_gets_other_tokens_than_its_parent() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True)
    tokens = done.stdout.split()
    assert len(tokens) == 2
    assert tokens[0] != tokens[1]
