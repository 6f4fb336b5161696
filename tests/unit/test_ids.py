"""Ids as keys hold them: each id has one name, no two have the same, and order is kept."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ddq.store.ids import pack_id, unpack_id

UUIDS = st.uuids().map(str)
NEARLY = UUIDS.flatmap(
    lambda text: st.sampled_from(
        [
            text.upper(),
            text.replace("-", ""),
            f"{{{text}}}",
            f"urn:uuid:{text}",
            text[:-1],
            text + "0",
            text + "\n",
            text[:8] + text[9:] + "-",
            text[:-1] + "g",
            text[:-1] + "\u0661",
            "\x02" + uuid.UUID(text).bytes.decode("latin-1"),
        ]
    )
)
"""Texts that say a UUID in another way, or nearly."""
IDS = st.one_of(UUIDS, NEARLY, st.text(max_size=40), st.text("\0\x01\x02\x03a", max_size=18))


def packed(task_id: str) -> bytes:
    """As it is sent to the store."""
    name = pack_id(task_id)
    return name if isinstance(name, bytes) else name.encode()


def is_uuid(task_id: str) -> bool:
    """Whether it is the usual form of a UUID."""
    try:
        return str(uuid.UUID(task_id)) == task_id
    except ValueError:
        return False


@given(IDS)
def test_an_id_is_read_back(task_id: str) -> None:
    assert unpack_id(packed(task_id)) == task_id


@given(UUIDS)
def test_a_uuid_has_17_bytes(task_id: str) -> None:
    assert packed(task_id) == b"\x02" + uuid.UUID(task_id).bytes


@given(IDS.filter(lambda task_id: not is_uuid(task_id) and task_id[:1] not in {"\x01", "\x02"}))
def test_every_other_id_stays_as_it_is(task_id: str) -> None:
    assert packed(task_id) == task_id.encode()


@given(IDS, IDS)
@example("\x02" + "a" * 16, str(uuid.UUID(bytes=b"a" * 16)))
@example("\x01\x02" + "a" * 16, "\x02" + "a" * 16)
def test_no_two_ids_have_the_same_name(one: str, other: str) -> None:
    assert (packed(one) == packed(other)) == (one == other)


@pytest.mark.parametrize("ids", [UUIDS, IDS.filter(lambda task_id: not is_uuid(task_id))])
@given(st.data())
def test_ids_of_a_kind_keep_their_order(ids: st.SearchStrategy[str], data: st.DataObject) -> None:
    one, other = data.draw(ids), data.draw(ids)
    assert (packed(one) < packed(other)) == (one.encode() < other.encode())


def test_bytes_that_are_no_text_are_escaped() -> None:
    assert unpack_id(b"\xff\x02") == "\\xff\x02"
    assert unpack_id(b"\x02short") == "\x02short"
