"""The guard by itself: which credentials it takes, and for how long it remembers them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from ddq.access import Guard, guard, rule_of
from ddq.access.tokens import Sealed
from ddq.errors import DdqError, PermissionDenied, Unauthenticated
from tests.support.access import AccessFile, bearer

ENQUEUE = rule_of("ddq.v1.DelayQueueService/Enqueue")


@pytest.fixture
def access(tmp_path: Path) -> AccessFile:
    return AccessFile(tmp_path)


def refusal(made: Guard, context: Any, request: Any = None) -> DdqError | None:
    """Why the guard refuses an Enqueue."""
    caller = made.caller(context)
    if isinstance(caller, DdqError) or request is None:
        return caller if isinstance(caller, DdqError) else None
    return made.refusal(ENQUEUE, caller, request)


class Context:
    """What the guard asks of gRPC."""

    def __init__(self, *metadata: tuple[str, str], **properties: bytes) -> None:
        self._metadata = metadata
        self._properties = {name: [value] for name, value in properties.items()}

    def invocation_metadata(self) -> Any:
        return self._metadata

    def auth_context(self) -> Any:
        return self._properties


def test_a_token_is_verified_once_and_the_cache_is_cleared_with_the_file(
    access: AccessFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = access.token("mail:produce")
    made = Guard(access.path)
    verified: list[str] = []
    fits = Sealed.fits

    def counted(self: Sealed, secret: str) -> bool:
        verified.append(secret)
        return fits(self, secret)

    monkeypatch.setattr(Sealed, "fits", counted)
    context = Context(*bearer(token))
    assert [refusal(made, context) for _ in range(3)] == [None] * 3
    assert len(verified) == 1
    access.revoke(token)
    made._reload()
    assert isinstance(refusal(made, context), Unauthenticated)
    assert len(verified) == 2


def test_a_secret_is_compared_also_where_no_entry_has_the_id(
    access: AccessFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of a refusal does not say which ids there are."""
    made = Guard(access.path)
    compared: list[str] = []

    def noted(_self: Sealed, secret: str) -> bool:
        compared.append(secret)
        return False

    monkeypatch.setattr(Sealed, "fits", noted)
    for token in ("ddq_none_secret", "other", ""):
        assert isinstance(refusal(made, Context(*bearer(token))), Unauthenticated)
    assert compared == ["secret", "", ""]


def test_only_so_many_callers_are_remembered(
    access: AccessFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "KNOWN_MAX_COUNT", 2)
    tokens = [access.token("*:all") for _ in range(5)]
    made = Guard(access.path)
    for token in tokens:
        assert refusal(made, Context(*bearer(token))) is None
        assert len(made._known) <= 2
    for spelling in ("bearer", "BEARER", "Bearer"):
        assert refusal(made, Context(("authorization", f"{spelling}  {tokens[0]}"))) is None


def test_an_expired_token_is_refused_also_when_it_was_verified_before(
    access: AccessFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_s = int(time.time()) + 1_000
    context = Context(*bearer(access.token("*:all", expires_s=end_s)))
    made = Guard(access.path)
    assert refusal(made, context) is None
    monkeypatch.setattr("ddq.access.guard.time.time", lambda: float(end_s))
    refused = refusal(made, context)
    assert isinstance(refused, Unauthenticated)
    assert "expired" in str(refused)


PEM = b"-----BEGIN CERTIFICATE-----"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("dns:worker-1", "peer_dns"),
        ("uri:spiffe://org/worker", "peer_uri"),
        ("email:me@example.org", "peer_email"),
        ("ip:10.1.2.3", "peer_ip"),
        ("cn:worker-1", "x509_common_name"),
        ("subject:CN=worker-1,O=Org", "x509_subject"),
    ],
)
def test_a_certificate_has_the_scopes_of_the_entries_that_name_it(
    access: AccessFile, kind: str, name: str
) -> None:
    access.certificate(kind, "mail:produce")
    value = kind.partition(":")[2].encode()
    made = Guard(access.path)
    context: Any = Context(x509_pem_cert=PEM, **{name: value})
    request: Any = type("Request", (), {"topic": "mail"})()
    assert refusal(made, context, request) is None
    request.topic = "other"
    assert isinstance(refusal(made, context, request), PermissionDenied)
    stranger: Any = Context(x509_pem_cert=PEM + b"2", **{name: value + b"2"})
    refused = refusal(made, stranger, request)
    assert isinstance(refused, Unauthenticated)
    assert f"{kind}2" in str(refused)
    # Of another kind the same text is another name.
    if name != "peer_dns":
        other: Any = Context(x509_pem_cert=PEM + b"3", peer_dns=value)
        assert isinstance(refusal(made, other, request), Unauthenticated)


def test_names_without_a_verified_certificate_count_for_nothing(access: AccessFile) -> None:
    access.certificate("dns:worker-1", "*:all")
    refused = refusal(Guard(access.path), Context(peer_dns=b"worker-1"))
    assert isinstance(refused, Unauthenticated)


def test_of_several_entries_for_a_certificate_each_counts_until_its_end(
    access: AccessFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_s = int(time.time()) + 1_000
    access.certificate("dns:worker-1", "mail:produce")
    access.certificate("cn:worker-1", "other:produce", expires_s=end_s)
    made = Guard(access.path)
    context = Context(x509_pem_cert=PEM, peer_dns=b"worker-1", x509_common_name=b"worker-1")
    request: Any = type("Request", (), {"topic": "other"})()
    assert refusal(made, context, request) is None
    monkeypatch.setattr("ddq.access.guard.time.time", lambda: float(end_s))
    assert isinstance(refusal(made, context, request), PermissionDenied)
    request.topic = "mail"
    assert refusal(made, context, request) is None


def test_a_token_counts_and_not_the_certificate_beside_it(access: AccessFile) -> None:
    access.certificate("dns:worker-1", "*:all")
    made = Guard(access.path)
    context = Context(*bearer("ddq_no_no"), x509_pem_cert=PEM, peer_dns=b"worker-1")
    assert isinstance(refusal(made, context), Unauthenticated)
