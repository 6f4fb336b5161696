"""Which key holds what, and which shard a task lives on: both are part of what is stored."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddq.store.keys import ROOTS, ShardId, shard_of


@pytest.mark.parametrize(
    ("task_id", "shards", "index"),
    # SHA-256("a") begins with ca978112ca1bbdca, that of "" with e3b0c44298fc1c14.
    [
        ("a", 1, 0),
        ("a", 7, 0xCA978112CA1BBDCA % 7),
        ("a", 64, 0xCA978112CA1BBDCA % 64),
        ("", 64, 0xE3B0C44298FC1C14 % 64),
        (
            "größe",
            64,
            int.from_bytes(hashlib.sha256(b"gr\xc3\xb6\xc3\x9fe").digest()[:8], "big") % 64,
        ),
    ],
)
def test_the_shard_of_a_task_never_changes(task_id: str, shards: int, index: int) -> None:
    assert shard_of(task_id, shards) == index


def test_tasks_spread_over_all_shards() -> None:
    assert {shard_of(f"task-{n}", 64) for n in range(2_000)} == set(range(64))


def test_the_names_of_the_keys() -> None:
    assert ShardId("mail", 0).key("tasks") == "ddq:tasks:{mail}"
    assert ShardId("mail", 3).key("tasks") == "ddq:tasks:{mail:3}"
    assert ShardId("mail", 0).keys[0] == "ddq:control:{mail}"


@pytest.mark.parametrize("index", [0, 1, 63])
def test_all_keys_of_a_shard_share_one_hash_tag(index: int) -> None:
    shard = ShardId("mail", index)
    tags = {key[key.index("{") + 1 : key.index("}")] for key in shard.keys}
    assert tags == {shard.tag[1:-1]}
    assert len(set(shard.keys)) == len(ROOTS) == 11


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid key root 'task'"):
        ShardId("mail", 0).key("task")


@given(st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True), st.integers(0, 63))
def test_a_tag_is_read_back(topic: str, index: int) -> None:
    assert ShardId.parse(ShardId(topic, index).tag) == ShardId(topic, index)


@pytest.mark.parametrize(
    "tag", ["", "mail", "{mail", "mail}", "{}", "{:1}", "{mail:x}", "{mail:-1}"]
)
def test_an_invalid_tag_is_parsed_as_none(tag: str) -> None:
    assert ShardId.parse(tag) is None
