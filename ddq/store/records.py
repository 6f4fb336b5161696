"""The records of a task as bytes, packed here and in lua/prelude/records.lua alike.

payloads[id], written once, big-endian, in one of two forms that the first byte tells apart.
Wide, the only one in shards of format 1:
    1 u8, incarnation u64, enqueued ms u64, first due ms u64, policy 28 bytes, digest 16 bytes,
    headers length u32, headers, payload
Compact, in shards of format 2, unless a number is too large for it:
    first byte, the low 40 bits of enqueued ms and of the incarnation, the next 4 bits of both u8,
    ms from the enqueue to the first due time u40, digest 16 bytes, policy 28 bytes or nothing,
    headers length u32 or nothing, headers, payload
    first byte: 128, and 64 if there are headers, and the number of the policy, or 63 if the record
    has it itself. control.policies has the policies with numbers, one behind the other.
policy: max attempts u32, initial backoff ms u64, longest backoff ms u64, multiplier in thousandths
    u32, jitter in thousandths u32.
headers: for each, key length u16, key, value length u16, value; keys in byte order.

states[id], written by each transition:
    format u8, state u8, revision u64, incarnation u64, promotion u32, attempt u32, run u32,
    due ms u64, updated ms u64, verdict u8, then with a length u8 before each: token, settled
    token, digest (tombstones only), request_id of the cancel; with a length u16: last error;
    and behind that, unless it is 0, how often the run was snoozed u32.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Mapping

from ddq.errors import StoreMalformed
from ddq.task import NO_OVERRIDES, STATES, NewTask, RetryPolicy, Task

FORMAT = 2
"""The latest form of a shard's keys and records; earlier ones are read and written too."""
DIGEST_BYTES = 16

_POLICY = struct.Struct(">IQQII")
_WIDE_HEAD = struct.Struct(f">BQQQ{_POLICY.size}s16sI")
_COMPACT, _HAS_HEADERS, _OWN_POLICY = 128, 64, 63
_COMPACT_HEAD_BYTES = 33
_LOW_BITS = 40
_LENGTH = struct.Struct(">Q")
_HEADERS_LENGTH = struct.Struct(">I")
_NO_HEADERS = _HEADERS_LENGTH.pack(0)
_CONTENT_HEAD = struct.Struct(">16sI")
_STATE_HEAD = struct.Struct(">BBQQIIIQQB")
_THOUSANDTHS = 1_000


def pack_headers(headers: Mapping[str, str]) -> bytes:
    """Headers as bytes; equal mappings give equal bytes."""
    if not headers:
        return b""
    pairs = sorted((key.encode(), value.encode()) for key, value in headers.items())
    return b"".join(
        struct.pack(f">H{len(key)}sH{len(value)}s", len(key), key, len(value), value)
        for key, value in pairs
    )


def unpack_headers(data: bytes) -> dict[str, str]:
    """The inverse of pack_headers."""
    headers, at = {}, 0
    while at < len(data):
        parts = []
        for _ in range(2):
            (length,) = struct.unpack_from(">H", data, at)
            parts.append(data[at + 2 : at + 2 + length].decode())
            at += 2 + length
        headers[parts[0]] = parts[1]
    return headers


def pack_new_task(task: NewTask, policy: bytes) -> tuple[bytes, bytes]:
    """What the enqueue script makes the payload record of: its head and content.

    Args:
        policy: from pack_policy.
    """
    if not task.headers:
        return policy + _NO_HEADERS, task.payload
    headers = pack_headers(task.headers)
    return policy + _HEADERS_LENGTH.pack(len(headers)), headers + task.payload


def pack_policy(policy: RetryPolicy) -> bytes:
    """A retry policy as bytes."""
    return _POLICY.pack(
        policy.max_attempts,
        policy.initial_backoff_ms,
        policy.max_backoff_ms,
        round(policy.multiplier * _THOUSANDTHS),
        round(policy.jitter * _THOUSANDTHS),
    )


def pack_topic_policy(topic_policy: RetryPolicy) -> bytes:
    """The retry policy of a topic's tasks that ask for no other one."""
    return pack_policy(NO_OVERRIDES.over(topic_policy))


def pack_content(digest: bytes, headers: Mapping[str, str], payload: bytes) -> bytes:
    """Digest, length of the headers, headers and payload of a task's next run."""
    packed = pack_headers(headers) if headers else b""
    return _CONTENT_HEAD.pack(digest, len(packed)) + packed + payload


def digest_part(part: bytes) -> bytes:
    """A part of what content_digest is over, preceded by its length."""
    return _LENGTH.pack(len(part)) + part


def content_digest(*parts: bytes) -> bytes:
    """DIGEST_BYTES over what a producer sent: the beginning of the SHA-256 of its parts."""
    return hashlib.sha256(b"".join(map(digest_part, parts))).digest()[:DIGEST_BYTES]


@functools.lru_cache(maxsize=256)
def _unpack_policy(packed: bytes) -> RetryPolicy:
    """The inverse of pack_policy; remembered, since most tasks have the policy of their topic."""
    attempts, initial_ms, longest_ms, multiplier, jitter = _POLICY.unpack(packed)
    return RetryPolicy(
        attempts, initial_ms, longest_ms, multiplier / _THOUSANDTHS, jitter / _THOUSANDTHS
    )


def _lease_token(state: bytes) -> bytes:
    length = state[_STATE_HEAD.size]
    return state[_STATE_HEAD.size + 1 : _STATE_HEAD.size + 1 + length]


def lease_token(state: bytes) -> bytes:
    """The lease token in a state record; empty when the task is not leased."""
    try:
        return _lease_token(state)
    except IndexError as error:
        raise StoreMalformed("a state record in the store is too short") from error


def _last_error_and_snoozes(state: bytes) -> tuple[str, int]:
    at = _STATE_HEAD.size
    for _ in range(4):
        at += 1 + state[at]
    (length,) = struct.unpack_from(">H", state, at)
    end = at + 2 + length
    snoozes = int.from_bytes(state[end : end + 4], "big") if len(state) >= end + 4 else 0
    return state[at + 2 : end].decode(errors="replace"), snoozes


def _unpack_payload_head(record: bytes, policies: bytes) -> tuple[int, bytes, int, int]:
    """When the task was enqueued, its policy, and where its headers begin and end."""
    first = record[0]
    if first < _COMPACT:
        _, _, created_ms, _, policy, _, size = _WIDE_HEAD.unpack_from(record)
        return created_ms, policy, _WIDE_HEAD.size, _WIDE_HEAD.size + size
    at, size, number = _COMPACT_HEAD_BYTES, 0, first % _HAS_HEADERS
    if number == _OWN_POLICY:
        policy = record[at : at + _POLICY.size]
        at += _POLICY.size
    else:
        policy = policies[number * _POLICY.size : (number + 1) * _POLICY.size]
    if first >= _COMPACT + _HAS_HEADERS:
        (size,) = _HEADERS_LENGTH.unpack_from(record, at)
        at += _HEADERS_LENGTH.size
    if len(record) < at:
        raise ValueError("it is too short")
    created_ms = int.from_bytes(record[1:6], "big") | record[11] >> 4 << _LOW_BITS
    return created_ms, policy, at, at + size


def unpack_task(
    topic: str,
    task_id: str,
    payload_record: bytes,
    state_record: bytes,
    *,
    lease_expiry_ms: int = 0,
    record_size_bytes: int | None = None,
    policies: bytes = b"",
) -> Task:
    """A task from its two records, as the scripts return them.

    Args:
        payload_record: empty for a tombstone; may be cut behind the headers.
        lease_expiry_ms: 0 when it is not leased.
        record_size_bytes: of the payload record before it was cut; None if it was not.
        policies: those of the shard, to which a compact payload record refers by number.

    Raises:
        StoreMalformed: a record is shorter than it says, or of another format.
    """
    try:
        (_, state, revision, incarnation, promotion, attempt, run, due_ms, updated_ms, _) = (
            _STATE_HEAD.unpack_from(state_record)
        )
        known_state = STATES[state]
        last_error, snoozes = _last_error_and_snoozes(state_record)
        if not payload_record:
            return Task(
                topic,
                task_id,
                known_state,
                revision,
                incarnation,
                promotion,
                attempt,
                run,
                due_ms,
                updated_ms,
                last_error,
                snoozes,
            )
        created_ms, packed_policy, headers_at, head = _unpack_payload_head(payload_record, policies)
        policy = _unpack_policy(packed_policy)
        headers = unpack_headers(payload_record[headers_at:head]) if head > headers_at else {}
    except (struct.error, LookupError, ValueError) as error:
        raise StoreMalformed(
            f"the record of task {task_id!r} in topic {topic!r} cannot be read: {error}"
        ) from error
    whole = record_size_bytes is None or record_size_bytes == len(payload_record)
    return Task(
        topic=topic,
        id=task_id,
        state=known_state,
        revision=revision,
        incarnation=incarnation,
        promotion=promotion,
        attempt=attempt,
        run=run,
        due_ms=due_ms,
        updated_ms=updated_ms,
        last_error=last_error,
        snoozes=snoozes,
        created_ms=created_ms,
        lease_expiry_ms=lease_expiry_ms,
        headers=headers,
        retry_policy=policy,
        payload=payload_record[head:] if whole else None,
        payload_size_bytes=(len(payload_record) if whole else record_size_bytes or 0) - head,
    )
