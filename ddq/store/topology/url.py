"""The store's URL, read: the kind of store, the nodes that are asked first, and the credentials."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ddq.store.topology.node import AddressMap, Node, parse_address_map, parse_node

FORMS = (
    "embedded:FOLDER, redis://HOST:PORT/DB, unix:///SOCKET, "
    "sentinel://HOST:PORT,HOST:PORT,HOST:PORT/MASTER, cluster://HOST:PORT,HOST:PORT; "
    "with TLS rediss://, sentinels://, clusters://"
)
DEFAULT_PORT = 6379
DEFAULT_SENTINEL_PORT = 26379

_KINDS = {
    "redis": "tcp",
    "rediss": "tcp",
    "unix": "unix",
    "sentinel": "sentinel",
    "sentinels": "sentinel",
    "cluster": "cluster",
    "clusters": "cluster",
}
_PLACES = {
    "tcp": "HOST:PORT/DB",
    "sentinel": "HOST:PORT,HOST:PORT,HOST:PORT/MASTER",
    "cluster": "HOST:PORT,HOST:PORT",
}
_URL = re.compile(
    r"[^:]*:(?://(?P<netloc>[^/?#]*))?(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#.*)?"
)
"""As in RFC 3986, appendix B."""
_TLS_OPTIONS = ("ca_file", "cert_file", "key_file", "check_hostname")
_OPTIONS = {
    "tcp": (),
    "unix": ("db",),
    "sentinel": ("db", "map", "sentinel_username", "sentinel_password", "sentinel_tls"),
    "cluster": ("map",),
}


class StoreUrlError(ValueError):
    """The store's URL cannot be used; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Access:
    """How one gets in.

    Attributes:
        username, password: for ACL; None for none.
        tls: whether the connection is encrypted, and the server has to prove its name.
        ca_file: further CA certificates to verify the server with; None for the system's only.
        cert_file, key_file: that authenticate the client; None for none.
        check_hostname: whether the server's certificate has to be for the name or address one
            connects to.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    check_hostname: bool = True


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A parsed URL of a store.

    Attributes:
        kind: "embedded", "unix", "tcp", "sentinel" or "cluster".
        path: the folder (embedded) or socket (unix).
        seeds: the server (tcp), the Sentinels, or the nodes of a Cluster, that are asked first.
        database: its number.
        master_name: under which the Sentinels know the master.
        access: to the store's nodes.
        sentinel_access: to the Sentinels.
        address_map: for every address, those of the URL and those that the store names.
    """

    kind: str
    path: Path | None = None
    seeds: tuple[Node, ...] = ()
    database: int = 0
    master_name: str = ""
    access: Access = Access()
    sentinel_access: Access = Access()
    address_map: AddressMap = field(default_factory=AddressMap)

    def __str__(self) -> str:
        """Without passwords, for logs and people."""
        if self.kind == "embedded":
            return f"embedded:{self.path}"
        if self.kind == "unix":
            return f"unix://{self.path}?db={self.database}"
        user = f"{quote(self.access.username, safe='')}@" if self.access.username else ""
        scheme = {"tcp": "redis"}.get(self.kind, self.kind) + "s" * self.access.tls
        path = {"tcp": f"/{self.database}", "sentinel": f"/{self.master_name}"}.get(self.kind, "")
        options = urlencode(self._options(), safe="/,:=[]")
        hosts = ",".join(map(str, self.seeds))
        return f"{scheme}://{user}{hosts}{path}" + f"?{options}" * bool(options)

    def _options(self) -> list[tuple[str, str]]:
        """Those that are not as they would be without."""
        given: dict[str, Any] = {
            "ca_file": self.access.ca_file or self.sentinel_access.ca_file,
            "cert_file": self.access.cert_file or self.sentinel_access.cert_file,
            "key_file": self.access.key_file or self.sentinel_access.key_file,
            "map": str(self.address_map),
        }
        if not (self.access.check_hostname and self.sentinel_access.check_hostname):
            given["check_hostname"] = "false"
        if self.kind == "sentinel":
            given["db"] = self.database or ""
            given["sentinel_username"] = self.sentinel_access.username
            if self.sentinel_access.tls != self.access.tls:
                given["sentinel_tls"] = str(self.sentinel_access.tls).lower()
        return [(name, str(value)) for name, value in given.items() if value]

    @property
    def node(self) -> Node:
        """The only node of a store that has one."""
        if self.kind == "unix":
            return Node(str(self.path))
        (node,) = self.seeds
        return node

    def connector(self) -> Callable[[], AbstractConnection]:
        """Makes connections to the only node of a store that has one; see connection_to."""
        node = self.node
        return lambda: self.connection_to(node)

    def connection_to(self, node: Node) -> AbstractConnection:
        """A connection to a node, not yet opened, that never retries by itself."""
        return _connection(self.address_map.reach(node), self.access, self.database)

    def connection_to_sentinel(self, node: Node) -> AbstractConnection:
        """The same, to a Sentinel."""
        return _connection(self.address_map.reach(node), self.sentinel_access, database=0)

    def check_files(self) -> None:
        """Reads the files of TLS once.

        Raises:
            StoreUrlError: one of them is missing, or is not what it should be.
        """
        for access in (self.access, self.sentinel_access):
            if access.tls:
                _check_files(access)


def _connection(node: Node, access: Access, database: int) -> AbstractConnection:
    common: dict[str, Any] = {
        "db": database,
        "username": access.username,
        "password": access.password,
        "socket_timeout": None,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    if not node.port:
        return UnixDomainSocketConnection(path=node.host, **common)
    tcp = common | {"host": node.host, "port": node.port, "socket_keepalive": True}
    if not access.tls:
        return Connection(**tcp)
    return SSLConnection(
        ssl_ca_certs=access.ca_file,
        ssl_certfile=access.cert_file,
        ssl_keyfile=access.key_file,
        ssl_check_hostname=access.check_hostname,
        **tcp,
    )


def _check_files(access: Access) -> None:
    context = ssl.create_default_context()
    try:
        if access.ca_file:
            context.load_verify_locations(cafile=access.ca_file)
    except OSError as error:
        raise StoreUrlError(f"ca_file {access.ca_file!r} cannot be used: {error}") from None
    try:
        if access.cert_file:
            context.load_cert_chain(access.cert_file, access.key_file)
    except OSError as error:
        key = f" with key_file {access.key_file!r}" if access.key_file else ""
        raise StoreUrlError(
            f"cert_file {access.cert_file!r}{key} cannot be used: {error}"
        ) from None


def parse_store_url(url: str, address_map: str = "") -> StoreUrl:
    """Reads a store's URL.

    Args:
        address_map: further entries, for the kinds of store that name addresses; see
            parse_address_map.

    Raises:
        StoreUrlError: with one line that says what is wrong and which forms there are.
    """
    scheme, colon, rest = url.partition(":")
    if scheme == "embedded" and colon:
        if not rest:
            raise StoreUrlError("store URL 'embedded:' lacks its folder: embedded:FOLDER")
        return StoreUrl("embedded", path=Path(rest))
    if not colon or scheme not in _KINDS:
        raise StoreUrlError(f"store URL {_shown(url)!r} has none of the forms {FORMS}")
    try:
        return _parse(scheme, url, address_map)
    except StoreUrlError:
        raise
    except ValueError as error:
        raise StoreUrlError(f"store URL {_shown(url)!r} cannot be read: {error}") from None


def _parse(scheme: str, url: str, address_map: str) -> StoreUrl:
    kind = _KINDS[scheme]
    netloc, path, query = _split(url)
    if "@" in url and "@" not in netloc and kind != "unix":
        raise ValueError("it has a '/', '?' or '#' before its '@'; write %2F, %3F, %23")
    options = _options(scheme, query)
    if kind == "unix":
        if netloc or not path:
            raise ValueError("it lacks its socket: unix:///PATH/TO/SOCKET")
        return StoreUrl("unix", path=Path(path), database=_database(options.get("db")))
    access = _access(scheme, netloc, options)
    default_port = DEFAULT_SENTINEL_PORT if kind == "sentinel" else DEFAULT_PORT
    hosts = netloc.rpartition("@")[2]
    form = f"{scheme}://{_PLACES[kind]}"
    if not hosts or hosts.startswith(":"):
        raise ValueError(f"it lacks its host: {form}")
    seeds = tuple(parse_node(host, default_port) for host in hosts.split(","))
    if kind == "tcp":
        if len(seeds) > 1:
            raise ValueError("it has several hosts; sentinel:// and cluster:// take several")
        return StoreUrl(kind, seeds=seeds, database=_database(path.strip("/")), access=access)
    if len(set(seeds)) < len(seeds):
        raise ValueError("it names a host twice")
    named = parse_address_map(",".join(filter(None, (options.get("map"), address_map))))
    name = unquote(path.strip("/"))
    if kind == "cluster":
        if name:
            raise ValueError(f"it has {name!r} behind its hosts, and a Cluster has no databases")
        return StoreUrl(kind, seeds=seeds, access=access, address_map=named)
    if not name or "/" in name:
        raise ValueError(f"it lacks its master's name: {form}")
    return StoreUrl(
        kind,
        seeds=seeds,
        database=_database(options.get("db")),
        master_name=name,
        access=access,
        sentinel_access=_sentinel_access(access, options),
        address_map=named,
    )


def _split(url: str) -> tuple[str, str, str]:
    """The hosts with what is before their "@", the path, and the options.

    urllib does not know of several hosts: later ones than the first may not be in brackets, as
    Python 3.14 and the last releases of 3.11 to 3.13 check.
    """
    # What is left over of a file that held it, as urllib takes it away, too.
    match = _URL.fullmatch(re.sub(r"[\t\r\n]", "", url).strip())
    assert match is not None
    return match["netloc"] or "", match["path"], match["query"] or ""


def _options(scheme: str, query: str) -> dict[str, str]:
    kind = _KINDS[scheme]
    known = {*_OPTIONS[kind]}
    options: dict[str, str] = {}
    pairs = parse_qsl(query, strict_parsing=True) if query else []
    # The Sentinels may be behind TLS where the store is not, and both share the files.
    if scheme in {"rediss", "sentinels", "clusters"} or ("sentinel_tls", "true") in pairs:
        known |= {*_TLS_OPTIONS}
    for name, value in pairs:
        if name not in known:
            allowed = ", ".join(sorted(known)) or "none"
            raise ValueError(f"it has unknown options: {name}; known: {allowed}")
        if name in options and name != "map":
            raise ValueError(f"it has option {name} twice")
        options[name] = f"{options[name]},{value}" if name in options else value
    return options


def _access(scheme: str, netloc: str, options: dict[str, str]) -> Access:
    username, _, password = netloc.rpartition("@")[0].partition(":")
    if options.get("key_file") and not options.get("cert_file"):
        raise ValueError("it has a key_file and no cert_file")
    return Access(
        username=unquote(username) or None,
        password=unquote(password) or None,
        tls=scheme in {"rediss", "sentinels", "clusters"},
        ca_file=options.get("ca_file"),
        cert_file=options.get("cert_file"),
        key_file=options.get("key_file"),
        check_hostname=_boolean(options, "check_hostname", default=True),
    )


def _sentinel_access(access: Access, options: dict[str, str]) -> Access:
    if options.get("sentinel_username") and not options.get("sentinel_password"):
        raise ValueError("it has a sentinel_username and no sentinel_password")
    return Access(
        username=options.get("sentinel_username"),
        password=options.get("sentinel_password"),
        tls=_boolean(options, "sentinel_tls", default=access.tls),
        ca_file=access.ca_file,
        cert_file=access.cert_file,
        key_file=access.key_file,
        check_hostname=access.check_hostname,
    )


def _boolean(options: dict[str, str], name: str, *, default: bool) -> bool:
    value = options.get(name)
    if value not in {None, "true", "false"}:
        raise ValueError(f"it has {value!r} as {name}; give true or false")
    return default if value is None else value == "true"


def _database(text: str | None) -> int:
    if not text:
        return 0
    if not text.isdecimal():
        raise ValueError(f"it has {text!r} where the database's number belongs")
    return int(text)


def _shown(url: str) -> str:
    """The URL without its passwords: errors end up in logs."""
    hidden = re.sub(r"(://[^/?#]*?:).*@", r"\1***@", url)
    return re.sub(r"(sentinel_password=)[^&#]*", r"\1***", hidden)
