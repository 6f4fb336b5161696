"""How a client gets in: TLS, its own certificate, and the token that it sends.

The same settings everywhere: the flags of ``ddq``, the environment, and the arguments of Client,
SyncClient and Access.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import grpc

from ddq.client.proxy import is_loopback

Metadata: TypeAlias = tuple[tuple[str, str], ...]
"""As gRPC takes it."""

TOKEN_CHECK_S = 1.0
"""How often a token's file is looked at, at most."""

VARIABLES = {
    "tls": "DDQ_TLS",
    "tls_ca": "DDQ_TLS_CA",
    "tls_cert": "DDQ_TLS_CERT",
    "tls_key": "DDQ_TLS_KEY",
    "token_file": "DDQ_TOKEN_FILE",
    "token": "DDQ_TOKEN",
    "plain_token": "DDQ_PLAIN_TOKEN",
}
"""The environment variable of each setting."""

_TRUE, _FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"", "0", "false", "no", "off"})


class AccessError(ValueError):
    """The settings for TLS or tokens cannot be used; one line says why and what to do."""


@dataclass(frozen=True, slots=True)
class Access:
    """How a client gets in; without arguments in plain text and without a token.

    Attributes:
        tls: use TLS, and trust the authorities of the system.
        tls_ca: a file with the CA certificates to trust in their place, PEM; implies ``tls``.
        tls_cert, tls_key: files with the client's own certificate and its key, PEM; the key may be
            in the first. They imply ``tls``.
        token_file: a file with a token, which is read again when it changes.
        token: the token itself.
        plain_token: send the token without TLS to other machines too, as where something on the
            way there encrypts it.
    """

    tls: bool = False
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    token_file: str | None = None
    token: str | None = field(default=None, repr=False)
    plain_token: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Access:
        """What DDQ_TLS, DDQ_TLS_CA, DDQ_TLS_CERT, DDQ_TLS_KEY, DDQ_TOKEN_FILE, DDQ_TOKEN and
        DDQ_PLAIN_TOKEN say.

        Raises:
            AccessError: a value is not one of true and false where it has to be.
        """
        given: dict[str, str | bool] = {}
        for name, variable in VARIABLES.items():
            value = environment.get(variable, "")
            if name in {"tls", "plain_token"}:
                given[name] = _boolean(variable, value)
            elif value:
                given[name] = value
        return cls(**given)  # type: ignore[arg-type]

    @property
    def uses_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.tls or bool(self.tls_ca or self.tls_cert)

    def credentials(self) -> grpc.ChannelCredentials | None:
        """For a channel; None: plain text.

        Raises:
            AccessError: a file cannot be read, or a key is given without its certificate.
        """
        if self.tls_key and not self.tls_cert:
            raise AccessError("tls_key is given without tls_cert; give the certificate too")
        if not self.uses_tls:
            return None
        cert = _read("tls_cert", self.tls_cert)
        key = _read("tls_key", self.tls_key) if self.tls_key else cert
        return grpc.ssl_channel_credentials(_read("tls_ca", self.tls_ca), key, cert)

    def metadata(self, address: str, *, encrypted: bool) -> Callable[[], Metadata | None]:
        """A function that gives what is sent with each call to ``address``; None: nothing.

        Raises:
            AccessError: the token cannot be read, or would travel unencrypted.
        """
        if self.token and self.token_file:
            raise AccessError("token and token_file are both given; leave one of them out")
        if not (self.token or self.token_file):
            return _nothing
        if not (encrypted or self.plain_token or is_loopback(address)):
            raise AccessError(
                f"the token would travel to {address} unencrypted; use TLS (tls or tls_ca), or "
                "give plain_token if something on the way encrypts it"
            )
        if self.token_file:
            return _TokenFile(Path(self.token_file)).metadata
        assert self.token is not None
        sent = _bearer(self.token, "token")
        return lambda: sent


class _TokenFile:
    """A file with a token, read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_ns = -1
        self._checked_s = time.monotonic()
        self._sent = self._load()

    def metadata(self) -> Metadata:
        """With the token that the file contains; the earlier one while it cannot be read."""
        now_s = time.monotonic()
        if now_s >= self._checked_s + TOKEN_CHECK_S:
            self._checked_s = now_s
            try:
                if self._path.stat().st_mtime_ns != self._read_ns:
                    self._sent = self._load()
            except (OSError, AccessError):
                # It is being replaced, or is gone; the server says whether the old one still holds.
                pass
        return self._sent

    def _load(self) -> Metadata:
        try:
            changed_ns = self._path.stat().st_mtime_ns
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise AccessError(f"token_file {str(self._path)!r} cannot be read: {error}") from None
        sent = _bearer(text, f"token_file {str(self._path)!r}")
        self._read_ns = changed_ns
        return sent


def _bearer(text: str, name: str) -> Metadata:
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        # Without its text, which may be a secret all the same.
        raise AccessError(f"{name} has no token; give one line, as ddq token create prints it")
    return (("authorization", f"Bearer {token}"),)


def _nothing() -> None:
    return None


def _read(name: str, path: str | None) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise AccessError(f"{name} {path!r} cannot be read: {error.strerror or error}") from None


def _boolean(variable: str, value: str) -> bool:
    if value.lower() not in _TRUE | _FALSE:
        raise AccessError(f"{variable} is {value!r}; give true or false")
    return value.lower() in _TRUE
