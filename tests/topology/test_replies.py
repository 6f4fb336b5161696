"""Which errors, as the driver has them, are a reason to ask a node whether it is master still."""

from __future__ import annotations

from typing import Any

import pytest
from redis._parsers.base import BaseParser

from ddq.store.topology import is_lost_role


@pytest.mark.parametrize(
    ("text", "tells"),
    [
        ("READONLY You can't write against a read only replica.", True),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", True),
        ("CLUSTERDOWN The cluster is down", True),
        ("CLUSTERDOWN Hash slot not served", True),
        ("UNBLOCKED force unblock from blocking operation, instance state changed", True),
        ("NOREPLICAS Not enough good replicas to write.", True),
        ("ERR WAIT cannot be used with replica instances.", True),
        ("NOSCRIPT No matching script.", False),
        ("OOM command not allowed when used memory > 'maxmemory'.", False),
        ("TRYAGAIN Multiple keys request during rehashing of slot", False),
        ("MOVED 105 10.0.0.1:6379", False),
        ("ERR unknown command", False),
    ],
)
def test_errors_of_a_deposed_node(text: str, tells: bool) -> None:
    parsed: Any = BaseParser.parse_error(text)  # type: ignore[no-untyped-call]
    assert is_lost_role(parsed) is tells


def test_a_reply_that_is_not_an_error_is_not_a_lost_role() -> None:
    for reply in (None, 1, b"READONLY", [b"READONLY"]):
        assert not is_lost_role(reply)
