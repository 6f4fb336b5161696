"""Where the store is: one URL says it, and this turns it into connections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

FORMS = "embedded:FOLDER, redis://HOST:PORT/DB, rediss://HOST:PORT/DB (TLS), unix:///SOCKET"
DEFAULT_PORT = 6379


class StoreUrlError(ValueError):
    """The store's URL cannot be used; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A parsed URL of a store.

    Attributes:
        kind: "embedded", "tcp" or "unix".
        path: the folder (embedded) or socket (unix).
        host, port, tls: of a server reached by TCP.
        database: its number.
        username, password: for ACL; None for none.
        ca_file: certificates that vouch for the server; None for the system's.
    """

    kind: str
    path: Path | None = None
    host: str = ""
    port: int = DEFAULT_PORT
    tls: bool = False
    database: int = 0
    username: str | None = None
    password: str | None = None
    ca_file: str | None = None

    def __str__(self) -> str:
        """Without the password, for logs and people."""
        if self.kind == "embedded":
            return f"embedded:{self.path}"
        if self.kind == "unix":
            return f"unix://{self.path}?db={self.database}"
        user = f"{self.username}@" if self.username else ""
        return f"redis{'s' * self.tls}://{user}{self.host}:{self.port}/{self.database}"

    def connector(self) -> Callable[[], AbstractConnection]:
        """Makes connections to it, not yet opened, that never retry by themselves."""
        common: dict[str, Any] = {
            "db": self.database,
            "username": self.username,
            "password": self.password,
            "socket_timeout": None,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        if self.kind != "tcp":
            return lambda: UnixDomainSocketConnection(path=str(self.path), **common)
        tcp = common | {"host": self.host, "port": self.port, "socket_keepalive": True}
        if self.tls:
            return lambda: SSLConnection(ssl_ca_certs=self.ca_file, **tcp)
        return lambda: Connection(**tcp)


def parse_store_url(url: str) -> StoreUrl:
    """Reads a store's URL.

    Raises:
        StoreUrlError: with one line that says what is wrong and which forms there are.
    """
    scheme, colon, rest = url.partition(":")
    if not colon or scheme not in {"embedded", "redis", "rediss", "unix"}:
        raise StoreUrlError(f"store URL {url!r} has none of the forms {FORMS}")
    if scheme == "embedded":
        if not rest:
            raise StoreUrlError("store URL 'embedded:' lacks its folder: embedded:FOLDER")
        return StoreUrl("embedded", path=Path(rest))
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
        options = dict(parse_qsl(parts.query, strict_parsing=True) if parts.query else [])
    except ValueError as error:
        raise StoreUrlError(f"store URL {url!r} cannot be read: {error}") from None
    known = {"unix": {"db"}, "redis": set(), "rediss": {"ca_file"}}[scheme]
    if set(options) - known:
        unknown = ", ".join(sorted(set(options) - known))
        allowed = ", ".join(sorted(known)) or "none"
        raise StoreUrlError(f"store URL {url!r} has unknown options: {unknown}; known: {allowed}")
    if scheme == "unix":
        if parts.netloc or not parts.path:
            raise StoreUrlError(f"store URL {url!r} lacks its socket: unix:///PATH/TO/SOCKET")
        return StoreUrl("unix", path=Path(parts.path), database=_database(url, options.get("db")))
    if not parts.hostname:
        raise StoreUrlError(f"store URL {url!r} lacks its host: {scheme}://HOST:PORT/DB")
    return StoreUrl(
        "tcp",
        host=parts.hostname,
        port=port,
        tls=scheme == "rediss",
        database=_database(url, parts.path.strip("/")),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        ca_file=options.get("ca_file"),
    )


def _database(url: str, text: str | None) -> int:
    if not text:
        return 0
    if not text.isdecimal():
        raise StoreUrlError(f"store URL {url!r} has {text!r} where the database's number belongs")
    return int(text)
