"""The record of a topic in ddq:topics: uid, revision and a JSON document."""

from __future__ import annotations

import json
from dataclasses import asdict, fields

from ddq.errors import StoreMalformed
from ddq.task import Durability, RetryPolicy, Topic, TopicSettings

UID_BYTES = 16
_SETTINGS = frozenset(each.name for each in fields(TopicSettings))
_LATER_SETTINGS = {"fsync": False, "max_run_ms": 0, "max_bytes": 0}
"""Settings that an older version does not know, with the values that ask for nothing."""


def pack_document(topic: Topic) -> bytes:
    """What the registry keeps beside uid and revision, as JSON that people can read."""
    settings = asdict(topic.settings) | {"durability": topic.settings.durability.name}
    # A setting that came later is written only where it is used: a process of an older version
    # then leaves that topic out, which is better than to treat it as if it had asked for less.
    for name, unused in _LATER_SETTINGS.items():
        if settings[name] == unused:
            del settings[name]
    document = {
        "shards": topic.shards,
        "created_ms": topic.created_ms,
        "paused": topic.paused,
        "state": "DELETING" if topic.deleting else "ACTIVE",
        "settings": settings,
    }
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def unpack_topic(name: str, record: bytes) -> Topic:
    """A topic from its record in the registry.

    Raises:
        StoreMalformed: the record cannot be read.
    """
    try:
        document = json.loads(record[UID_BYTES + 8 :])
        settings = dict(document["settings"])
        if unknown := sorted(settings.keys() - _SETTINGS):
            raise StoreMalformed(
                f"topic {name!r} has settings that this ddq does not know ({', '.join(unknown)}): "
                "a newer ddq gave them; upgrade this process"
            )
        settings["retry_policy"] = RetryPolicy(**settings["retry_policy"])
        settings["durability"] = Durability[settings["durability"]]
        return Topic(
            name=name,
            uid=record[:UID_BYTES],
            revision=int.from_bytes(record[UID_BYTES : UID_BYTES + 8], "big"),
            shards=int(document["shards"]),
            settings=TopicSettings(**settings),
            created_ms=int(document["created_ms"]),
            paused=bool(document["paused"]),
            deleting=document["state"] == "DELETING",
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreMalformed(
            f"ddq:topics holds a record of topic {name!r} that cannot be read ({error}); "
            "remove or repair it"
        ) from error


def printable(name: bytes) -> str:
    """The name of a topic; one that was written by hand may hold any bytes."""
    return name.decode(errors="backslashreplace")
