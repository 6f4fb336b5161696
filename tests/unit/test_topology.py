"""The store's URL: what can be said, and one line for what cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddq.store.topology import FORMS, StoreUrl, StoreUrlError, parse_store_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("embedded:data", StoreUrl("embedded", path=Path("data"))),
        ("embedded:/var/lib/ddq", StoreUrl("embedded", path=Path("/var/lib/ddq"))),
        ("redis://store", StoreUrl("tcp", host="store")),
        ("redis://store:6380/2", StoreUrl("tcp", host="store", port=6380, database=2)),
        ("redis://[::1]:6380", StoreUrl("tcp", host="::1", port=6380)),
        (
            "redis://me:p%40ss@store/1",
            StoreUrl("tcp", host="store", database=1, username="me", password="p@ss"),
        ),
        ("redis://:secret@store", StoreUrl("tcp", host="store", password="secret")),
        (
            "rediss://store?ca_file=/etc/ca.pem",
            StoreUrl("tcp", host="store", tls=True, ca_file="/etc/ca.pem"),
        ),
        ("unix:///run/valkey.sock", StoreUrl("unix", path=Path("/run/valkey.sock"))),
        (
            "unix:///run/valkey.sock?db=3",
            StoreUrl("unix", path=Path("/run/valkey.sock"), database=3),
        ),
    ],
)
def test_each_form_is_read(text: str, url: StoreUrl) -> None:
    assert parse_store_url(text) == url


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has none of the forms"),
        ("store:6379", "has none of the forms"),
        ("/run/valkey.sock", "has none of the forms"),
        ("http://store", "has none of the forms"),
        ("sentinel://a,b/main", "has none of the forms"),
        ("cluster://a", "has none of the forms"),
        ("embedded:", "lacks its folder"),
        ("redis://", "lacks its host"),
        ("redis://:6379", "lacks its host"),
        ("redis://store:port", "cannot be read"),
        ("redis://store:99999", "cannot be read"),
        ("redis://[::1", "cannot be read"),
        ("redis://store/first", "where the database's number belongs"),
        ("redis://store/-1", "where the database's number belongs"),
        ("redis://store?db=1", "unknown options: db; known: none"),
        ("rediss://store?ca=/x", "unknown options: ca; known: ca_file"),
        ("redis://store?", None),
        ("rediss://store?ca_file", "cannot be read"),
        ("unix://run/valkey.sock", "lacks its socket"),
        ("unix:", "lacks its socket"),
        ("unix:///s?db=x", "where the database's number belongs"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, complaint: str | None) -> None:
    if complaint is None:
        parse_store_url(text)
        return
    with pytest.raises(StoreUrlError) as caught:
        parse_store_url(text)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_remedy_names_every_form() -> None:
    with pytest.raises(StoreUrlError) as caught:
        parse_store_url("what")
    assert FORMS in str(caught.value)


@pytest.mark.parametrize("text", ["redis://me:secret@store:6379/0", "redis://:secret@store:1/0"])
def test_a_password_is_never_shown(text: str) -> None:
    assert "secret" not in str(parse_store_url(text))


@pytest.mark.parametrize(
    "text", ["embedded:data", "redis://store:6379/2", "rediss://store:1/0", "unix:///s?db=3"]
)
def test_what_is_shown_can_be_given_again(text: str) -> None:
    assert str(parse_store_url(text)) == text


@pytest.mark.parametrize("text", ["redis://store", "rediss://store", "unix:///run/s"])
def test_the_drivers_own_retries_are_off(text: str) -> None:
    connection = parse_store_url(text).connector()()
    assert connection.retry._retries == 0
