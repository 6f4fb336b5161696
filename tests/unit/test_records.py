"""Records: what is packed is read back, and what is cut short is said to be."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddq.errors import StoreMalformed
from ddq.store.records import (
    content_digest,
    lease_token,
    pack_headers,
    pack_new_task,
    pack_policy,
    unpack_headers,
    unpack_task,
)
from ddq.task import NewTask, RetryOverrides, RetryPolicy, Schedule, TaskState

Form = Callable[[NewTask, RetryPolicy], bytes]
UINT64 = st.integers(0, 2**64 - 1)
UINT32 = st.integers(0, 2**32 - 1)
HEADERS = st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=40), max_size=8)
POLICIES = st.builds(
    RetryPolicy,
    max_attempts=st.one_of(st.integers(1, 10_000), st.just(2**32 - 1)),
    initial_backoff_ms=st.integers(0, 86_400_000),
    max_backoff_ms=st.integers(0, 2_592_000_000),
    multiplier=st.integers(1_000, 100_000).map(lambda thousandths: thousandths / 1_000),
    jitter=st.integers(0, 1_000).map(lambda thousandths: thousandths / 1_000),
)


def new_task(payload: bytes, headers: dict[str, str], digest: bytes = b"d" * 16) -> NewTask:
    return NewTask("a", payload, headers, Schedule(), RetryOverrides(), digest)


def wide(task: NewTask, policy: RetryPolicy) -> bytes:
    """A payload record as 0.2.0 wrote it."""
    head, content = pack_new_task(task, pack_policy(policy))
    return struct.pack(">BQQQ", 1, 7, 8, 9) + head[:28] + task.digest + head[28:] + content


def compact(task: NewTask, policy: RetryPolicy, number: int = 63) -> bytes:
    """A payload record as the enqueue script of this version stores it."""
    head, content = pack_new_task(task, pack_policy(policy))
    own = head[:28] if number == 63 else b""
    length = head[28:] if task.headers else b""
    first = 128 + number + 64 * bool(task.headers)
    times = b"".join(
        value.to_bytes(size, "big") for value, size in ((8, 5), (7, 5), (0, 1), (1, 5))
    )
    return bytes([first]) + times + task.digest + own + length + content


FORMS = [wide, compact]


def state_record(
    state: int = 3,
    *,
    revision: int = 11,
    incarnation: int = 7,
    token: bytes = b"",
    error: bytes = b"",
) -> bytes:
    """As pack_state in the prelude writes it."""
    head = struct.pack(">BBQQIIIQQB", 1, state, revision, incarnation, 1, 2, 3, 40, 50, 0)
    parts = b"".join(bytes([len(part)]) + part for part in (token, b"", b"", b""))
    return head + parts + struct.pack(">H", len(error)) + error


@given(HEADERS)
def test_headers_are_read_back(headers: dict[str, str]) -> None:
    assert unpack_headers(pack_headers(headers)) == headers


@given(HEADERS)
def test_equal_headers_give_equal_bytes_in_any_order(headers: dict[str, str]) -> None:
    assert pack_headers(dict(reversed(headers.items()))) == pack_headers(headers)


@pytest.mark.parametrize("form", FORMS)
@given(st.binary(max_size=200), HEADERS, POLICIES)
def test_a_task_is_read_back(
    form: Form, payload: bytes, headers: dict[str, str], policy: RetryPolicy
) -> None:
    record = form(new_task(payload, headers), policy)
    task = unpack_task("mail", "a", record, state_record(), lease_expiry_ms=60)
    assert (task.payload, dict(task.headers), task.retry_policy) == (payload, headers, policy)
    assert (task.created_ms, task.payload_size_bytes, task.lease_expiry_ms) == (8, len(payload), 60)


@given(st.integers(0, 62), POLICIES, POLICIES, HEADERS)
def test_a_policy_is_found_by_its_number(
    number: int, policy: RetryPolicy, other: RetryPolicy, headers: dict[str, str]
) -> None:
    policies = pack_policy(other) * number + pack_policy(policy)
    record = compact(new_task(b"payload", headers), policy, number)
    task = unpack_task("mail", "a", record, state_record(), policies=policies + pack_policy(other))
    assert (task.retry_policy, dict(task.headers), task.payload) == (policy, headers, b"payload")
    with pytest.raises(StoreMalformed):
        unpack_task("mail", "a", record, state_record(), policies=policies[:-1])


@given(UINT64, UINT64, st.sampled_from(TaskState), st.binary(max_size=16), st.binary(max_size=99))
def test_a_state_is_read_back(
    revision: int, incarnation: int, state: TaskState, token: bytes, error: bytes
) -> None:
    record = state_record(
        state, revision=revision, incarnation=incarnation, token=token, error=error
    )
    task = unpack_task("mail", "a", b"", record)
    assert (task.revision, task.incarnation, task.state) == (revision, incarnation, state)
    assert (task.promotion, task.attempt, task.run, task.due_ms, task.updated_ms) == (
        1,
        2,
        3,
        40,
        50,
    )
    assert task.last_error == error.decode(errors="replace")
    assert lease_token(record) == token
    # A tombstone has neither.
    assert (task.payload, task.retry_policy) == (None, None)


@pytest.mark.parametrize("form", FORMS)
def test_a_record_cut_behind_its_headers_still_tells_the_size_of_the_payload(form: Form) -> None:
    whole = form(new_task(b"12345", {"k": "v"}), RetryPolicy())
    task = unpack_task("mail", "a", whole[:-5], state_record(), record_size_bytes=len(whole))
    assert (task.payload, task.payload_size_bytes, dict(task.headers)) == (None, 5, {"k": "v"})


@pytest.mark.parametrize(("form", "head_bytes"), [(wide, 73), (compact, 65)])
@given(st.data())
def test_a_record_that_is_too_short_is_malformed(
    form: Form, head_bytes: int, data: st.DataObject
) -> None:
    whole = form(new_task(b"", {"key": "value"}), RetryPolicy())
    # Cut anywhere before the headers begin.
    cut = data.draw(st.integers(1, head_bytes - 1))
    with pytest.raises(StoreMalformed, match="the record of task 'a' in topic 'mail'"):
        unpack_task("mail", "a", whole[:cut], state_record())
    with pytest.raises(StoreMalformed):
        unpack_task("mail", "a", whole, state_record()[: data.draw(st.integers(0, 51))])


def test_a_state_of_no_task_is_malformed() -> None:
    with pytest.raises(StoreMalformed):
        unpack_task("mail", "a", b"", state_record(state=9))
    # A KeyError with a payload; found by `make fuzz-decoders`.
    whole = wide(new_task(b"", {}), RetryPolicy())
    with pytest.raises(StoreMalformed, match="the record of task 'a' in topic 'mail'"):
        unpack_task("mail", "a", whole, state_record(state=10))


def test_a_token_of_a_short_record_is_malformed() -> None:
    with pytest.raises(StoreMalformed, match="too short"):
        lease_token(state_record()[:47])


@given(st.lists(st.binary(max_size=8), max_size=4), st.lists(st.binary(max_size=8), max_size=4))
def test_other_content_has_another_digest(one: list[bytes], other: list[bytes]) -> None:
    # Where a part ends belongs to the content: (ab, c) is not (a, bc).
    assert (content_digest(*one) == content_digest(*other)) == (one == other)
