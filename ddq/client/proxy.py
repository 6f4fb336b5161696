"""Whether gRPC goes to a server through an HTTP proxy, as the environment may say."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
"""In the order in which gRPC looks at them; it knows no upper case."""
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")
_TARGET = re.compile(r"(?:(?P<scheme>[a-z][a-z0-9-]*):(?://[^/]*/)?)?(?P<rest>.*)")
_DIRECT_SCHEMES = frozenset({"unix", "unix-abstract"})
_SCHEMES = frozenset({"dns", "ipv4", "ipv6", "xds"}) | _DIRECT_SCHEMES


@dataclass(frozen=True, slots=True)
class Proxy:
    """The proxy that gRPC uses for an address.

    Attributes:
        variable: the environment variable that names it.
        url: its value, without what may be a password.
        exception: the variable that lists what is reached without it.
    """

    variable: str
    url: str
    exception: str


def is_loopback(address: str) -> bool:
    """Whether an address is this machine, which no proxy can reach."""
    scheme, host = _split(address)
    if scheme in _DIRECT_SCHEMES or host == "localhost" or host.endswith(".localhost"):
        return True
    found = _ip(host)
    return found is not None and found.is_loopback


def proxy_of(address: str, environment: Mapping[str, str] = os.environ) -> Proxy | None:
    """The proxy between here and an address that is not loopback; None: there is none."""
    variable = next((name for name in _VARIABLES if environment.get(name)), None)
    if variable is None or is_loopback(address):
        return None
    exception = next((name for name in _EXCEPTIONS if environment.get(name)), _EXCEPTIONS[-1])
    _, host = _split(address)
    if any(_covers(entry, host) for entry in environment.get(exception, "").split(",")):
        return None
    url = re.sub(r"//[^/@]*@", "//", environment[variable])
    return Proxy(variable, url, exception)


def _split(address: str) -> tuple[str, str]:
    """The scheme, dns if there is none, and the host without its port."""
    match = _TARGET.fullmatch(address)
    scheme, rest = "dns", address
    if match is not None and match["scheme"] in _SCHEMES:
        scheme, rest = match["scheme"], match["rest"]
    host, _, port = rest.rpartition(":")
    if not port.isdecimal() or not host:
        host = rest
    return scheme, host.strip("[]").lower()


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _covers(entry: str, host: str) -> bool:
    entry = entry.strip().lower()
    if not entry:
        return False
    found = _ip(host)
    if found is not None and "/" in entry:
        try:
            return found in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    # As gRPC compares them: by the end.
    return host.endswith(entry)
