"""Task ids as keys hold them, and as prelude/ids.lua reads them.

In shards of format 2 an id that is a UUID in its usual form, with lowercase letters, is the byte 2
and the 16 bytes of the UUID. Every other id is its UTF-8, behind a byte 1 if it begins with byte 1
or 2. So no two ids are the same bytes, and the first byte tells what they are. UUIDs keep their
order among each other, and so do all other ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_ESCAPE = "\x01"
_MARKS = ("\x01", "\x02")
_UUID_CHARS, _PACKED_BYTES = 36, 17
_is_uuid = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch


def pack_ids(ids: Iterable[str]) -> list[str | bytes]:
    """Ids as scripts take them; they know whether their shard holds them so."""
    return [
        b"\x02" + bytes.fromhex(task_id.replace("-", ""))
        if len(task_id) == _UUID_CHARS and _is_uuid(task_id)
        else _ESCAPE + task_id
        if task_id[:1] in _MARKS
        else task_id
        for task_id in ids
    ]


def pack_id(task_id: str) -> str | bytes:
    """The same for one id."""
    return pack_ids((task_id,))[0]


def unpack_id(packed: bytes) -> str:
    """An id from a script's reply, in either form; bytes that are not UTF-8 are escaped."""
    first = packed[:1]
    if first == b"\x02" and len(packed) == _PACKED_BYTES:
        digits = packed.hex()
        return f"{digits[2:10]}-{digits[10:14]}-{digits[14:18]}-{digits[18:22]}-{digits[22:]}"
    return (packed[1:] if first == b"\x01" else packed).decode(errors="backslashreplace")
