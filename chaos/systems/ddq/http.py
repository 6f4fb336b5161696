"""What a process says over HTTP; and by the Date of its answers, what time it takes it to be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.parser import HeaderParser
from email.utils import parsedate_to_datetime

_TIMEOUT_S = 2.0
_STEP_S = 0.05
_SECOND_MS = 1_000
# Half of it is how far the result may be off, where an answer takes less time than that.
_WIDTH_MS = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        date_ms: when it was made, by the clock of the process, rounded down to a second.
    """

    date_ms: int
    body: str


async def ask_http(ip: str, port: int, path: str) -> Answer:
    """One GET.

    Raises:
        OSError: there is no answer, or not in time.
    """
    async with asyncio.timeout(_TIMEOUT_S):
        reader, writer = await asyncio.open_connection(ip, port)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {ip}\r\n\r\n".encode())
            answer = await reader.read()
        finally:
            writer.transport.abort()
    head, end, body = answer.decode().partition("\r\n\r\n")
    if not end:
        raise ConnectionResetError(f"{ip}:{port} ended in the middle of its answer")
    date = HeaderParser().parsestr(head.partition("\r\n")[2])["Date"]
    return Answer(round(parsedate_to_datetime(date).timestamp()) * _SECOND_MS, body)


def _true_ms() -> float:
    return time.time_ns() / 1_000_000


async def offset_ms(
    date_ms: Callable[[], Awaitable[int]], now_ms: Callable[[], float] = _true_ms
) -> int:
    """How far the clock behind ``date_ms``, which rounds down to seconds, is from the true one.

    An answer says no more than that the other clock was within this second while it was on its
    way. Answers just before and just after a second is over leave little in between.

    Args:
        now_ms: the true clock.
    """
    low_ms, high_ms = float("-inf"), float("inf")
    shortest_ms = float("inf")
    width_ms = float(_WIDTH_MS)
    # On a busy machine each answer takes longer than the width: no more than that can be found out.
    while high_ms - low_ms > width_ms:
        asked_ms = now_ms()
        date = await date_ms()
        answered_ms = now_ms()
        shortest_ms = min(shortest_ms, answered_ms - asked_ms)
        width_ms = max(_WIDTH_MS, 1.5 * shortest_ms)
        low_ms = max(low_ms, date - answered_ms)
        high_ms = min(high_ms, date + _SECOND_MS - asked_ms)
        if low_ms > high_ms:
            # It was set meanwhile, and what was learnt before is about another time.
            low_ms, high_ms = float("-inf"), float("inf")
        await asyncio.sleep(_STEP_S)
    return round((low_ms + high_ms) / 2)
