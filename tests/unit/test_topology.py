"""The store's URL: what can be said, and one line for what cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddq.store.topology import (
    FORMS,
    Access,
    AddressMap,
    Node,
    StoreUrl,
    StoreUrlError,
    parse_store_url,
)

A_MAP = AddressMap(((Node("10.0.0.1", 6379), Node("proxy", 7001)), (Node("db2"), Node("nat"))))


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("embedded:data", StoreUrl("embedded", path=Path("data"))),
        ("embedded:/var/lib/ddq", StoreUrl("embedded", path=Path("/var/lib/ddq"))),
        ("redis://store", StoreUrl("tcp", seeds=(Node("store", 6379),))),
        ("redis://store:6380/2", StoreUrl("tcp", seeds=(Node("store", 6380),), database=2)),
        ("redis://[::1]:6380", StoreUrl("tcp", seeds=(Node("::1", 6380),))),
        ("redis://[::1]", StoreUrl("tcp", seeds=(Node("::1", 6379),))),
        (
            "redis://me:p%40ss@store/1",
            StoreUrl("tcp", seeds=(Node("store", 6379),), database=1, access=Access("me", "p@ss")),
        ),
        (
            "redis://:secret@store",
            StoreUrl("tcp", seeds=(Node("store", 6379),), access=Access(password="secret")),
        ),
        (
            "rediss://store?ca_file=/ca.pem&cert_file=/c.pem&key_file=/k.pem&check_hostname=false",
            StoreUrl(
                "tcp",
                seeds=(Node("store", 6379),),
                access=Access(
                    tls=True,
                    ca_file="/ca.pem",
                    cert_file="/c.pem",
                    key_file="/k.pem",
                    check_hostname=False,
                ),
            ),
        ),
        ("unix:///run/valkey.sock", StoreUrl("unix", path=Path("/run/valkey.sock"))),
        (
            "unix:///run/valkey.sock?db=3",
            StoreUrl("unix", path=Path("/run/valkey.sock"), database=3),
        ),
        (
            "sentinel://a,b:1,[::1]:2/main",
            StoreUrl(
                "sentinel",
                seeds=(Node("a", 26379), Node("b", 1), Node("::1", 2)),
                master_name="main",
            ),
        ),
        (
            "sentinel://me:pw@a/m?db=2&sentinel_username=s&sentinel_password=%26&map=a:1=b:2&map=c=d",
            StoreUrl(
                "sentinel",
                seeds=(Node("a", 26379),),
                database=2,
                master_name="m",
                access=Access("me", "pw"),
                sentinel_access=Access("s", "&"),
                address_map=AddressMap(((Node("a", 1), Node("b", 2)), (Node("c"), Node("d")))),
            ),
        ),
        (
            "sentinels://a/main?ca_file=/ca.pem",
            StoreUrl(
                "sentinel",
                seeds=(Node("a", 26379),),
                master_name="main",
                access=Access(tls=True, ca_file="/ca.pem"),
                sentinel_access=Access(tls=True, ca_file="/ca.pem"),
            ),
        ),
        (
            "sentinels://a/main?sentinel_tls=false",
            StoreUrl(
                "sentinel",
                seeds=(Node("a", 26379),),
                master_name="main",
                access=Access(tls=True),
                sentinel_access=Access(tls=False),
            ),
        ),
        (
            "cluster://a,b:1?map=10.0.0.1:6379=proxy:7001,db2=nat",
            StoreUrl("cluster", seeds=(Node("a", 6379), Node("b", 1)), address_map=A_MAP),
        ),
        (
            # A bracket in a password is not part of an address.
            "rediss://me:p[w@[::1]:1/0\n",
            StoreUrl("tcp", seeds=(Node("::1", 1),), access=Access("me", "p[w", tls=True)),
        ),
        (
            "clusters://me:word@a",
            StoreUrl("cluster", seeds=(Node("a", 6379),), access=Access("me", "word", tls=True)),
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
        ("sentinel", "has none of the forms"),
        ("embedded:", "lacks its folder"),
        ("redis://", "lacks its host: redis://HOST:PORT/DB"),
        ("redis://:6379", "lacks its host"),
        ("redis://store:port", "'port' where a port belongs"),
        ("redis://store:99999", "'99999' where a port belongs"),
        ("redis://store:0", "'0' where a port belongs"),
        ("redis://[::1", "cannot be read"),
        ("redis://[::1]6379", "invalid address"),
        ("redis://a,b", "several hosts; sentinel:// and cluster:// take several"),
        ("redis://store/first", "where the database's number belongs"),
        ("redis://store/-1", "where the database's number belongs"),
        ("redis://store?db=1", "unknown options: db; known: none"),
        ("redis://store?ca_file=/x", "unknown options: ca_file; known: none"),
        ("rediss://store?ca=/x", "unknown options: ca; known: ca_file, cert_file"),
        ("rediss://store?key_file=/x", "a key_file and no cert_file"),
        ("rediss://store?check_hostname=no", "'no' as check_hostname; give true or false"),
        ("rediss://store?ca_file=/a&ca_file=/b", "option ca_file twice"),
        ("rediss://store?ca_file", "cannot be read"),
        ("unix://run/valkey.sock", "lacks its socket"),
        ("unix:", "lacks its socket"),
        ("unix:///s?db=x", "where the database's number belongs"),
        ("sentinel:///main", "lacks its host: sentinel://HOST:PORT,"),
        ("sentinel://a,b", "lacks its master's name"),
        ("sentinel://a,b/", "lacks its master's name"),
        ("sentinel://a/main/2", "lacks its master's name"),
        ("sentinel://a,,b/main", "lacks its host"),
        ("sentinel://a,a:26379/main", "names a host twice"),
        ("sentinel://a/main?db=x", "where the database's number belongs"),
        ("sentinel://a/main?sentinel_tls=1", "'1' as sentinel_tls; give true or false"),
        ("sentinel://a/main?ca_file=/x", "unknown options: ca_file"),
        ("sentinel://a/main?sentinel_username=w", "a sentinel_username and no sentinel_password"),
        ("sentinel://a/main?map=x", "entry 'x': it lacks its '='"),
        ("sentinel://a/main?map=x:1=y", "entry 'x:1=y' has one port"),
        ("sentinel://a/main?map=x:p=y:1", "'p' where a port belongs"),
        ("sentinel://a/main?map=x:1=y:1,x:1=z:1", "two entries for x:1"),
        ("cluster://", "lacks its host"),
        ("cluster://a/0", "a Cluster has no databases"),
        ("cluster://a?db=0", "unknown options: db; known: map"),
    ],
)
def test_an_invalid_store_url_is_reported_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(StoreUrlError) as caught:
        parse_store_url(text)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_query_is_none() -> None:
    assert parse_store_url("redis://store?") == parse_store_url("redis://store")


def test_the_remedy_names_every_form() -> None:
    with pytest.raises(StoreUrlError) as caught:
        parse_store_url("what")
    assert FORMS in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "redis://me:secret@store:6379/0",
        "redis://:secret@store:1/0",
        "sentinel://me:secret@a/main?sentinel_password=secret",
        "clusters://:secret@a",
    ],
)
def test_a_password_is_never_shown(text: str) -> None:
    url = parse_store_url(text)
    assert "secret" not in str(url)
    assert "secret" not in repr(url)


@pytest.mark.parametrize(
    "text",
    [
        "redis://me:secret@store:port",
        "redis://me:secret@",
        "redis://me:1/secret@store",
        "redis://me:1#secret@store",
        "http://me:secret@store",
        "sentinel://a/main?sentinel_password=secret&sentinel_tls=x",
        "sentinel://me:secret@a?sentinel_password=secret",
    ],
)
def test_a_password_is_not_in_a_complaint_either(text: str) -> None:
    with pytest.raises(StoreUrlError) as caught:
        parse_store_url(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "embedded:data",
        "redis://store:6379/2",
        "rediss://store:1/0",
        "unix:///s?db=3",
        "sentinel://a:1,[::1]:2/main",
        "sentinels://me@a:1/main?ca_file=/ca.pem&db=2&sentinel_tls=false",
        "sentinel://a:1/main?ca_file=/ca.pem&sentinel_tls=true",
        "cluster://a:1,b:2?map=10.0.0.1:6379=proxy:7001,db2=nat",
        "clusters://a:1?cert_file=/c.pem&key_file=/k.pem&check_hostname=false",
    ],
)
def test_a_printed_store_url_can_be_parsed_again(text: str) -> None:
    assert str(parse_store_url(text)) == text


@pytest.mark.parametrize("text", ["redis://store", "rediss://store", "unix:///run/s"])
def test_the_drivers_own_retries_are_off(text: str) -> None:
    connection = parse_store_url(text).connector()()
    assert connection.retry._retries == 0
    sentinel = parse_store_url("sentinel://a/main").connection_to_sentinel(Node("a", 1))
    assert sentinel.retry._retries == 0


def test_the_address_map_is_for_what_the_store_names() -> None:
    assert A_MAP.reach(Node("10.0.0.1", 6379)) == Node("proxy", 7001)
    assert A_MAP.reach(Node("10.0.0.1", 6380)) == Node("10.0.0.1", 6380)
    assert A_MAP.reach(Node("db2", 6380)) == Node("nat", 6380), "an entry without ports keeps them"
    more = parse_store_url("cluster://a?map=x:1=y:2", "z=w")
    assert str(more.address_map) == "x:1=y:2,z=w"
    assert parse_store_url("redis://a", "z=w").address_map == AddressMap()


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("ca_file={here}/none.pem", "ca_file '{here}/none.pem' cannot be used: "),
        ("cert_file={here}/none.pem", "cert_file '{here}/none.pem' cannot be used: "),
        ("ca_file={here}/empty.pem", "ca_file '{here}/empty.pem' cannot be used: "),
    ],
)
def test_a_file_that_tls_cannot_use_is_said_at_once(
    tmp_path: Path, query: str, complaint: str
) -> None:
    (tmp_path / "empty.pem").write_text("")
    url = parse_store_url(f"clusters://a?{query.format(here=tmp_path)}")
    with pytest.raises(StoreUrlError) as caught:
        url.check_files()
    assert str(caught.value).startswith(complaint.format(here=tmp_path))
    assert "\n" not in str(caught.value)
