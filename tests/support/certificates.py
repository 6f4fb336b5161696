"""Certificates for tests, made once per test process."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its chain, and its key, both PEM."""

    cert: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Into NAME.pem and NAME.key; an earlier pair is replaced file by file, as cp does."""
        cert, key = folder / f"{name}.pem", folder / f"{name}.key"
        cert.write_bytes(self.cert)
        key.write_bytes(self.key)
        return cert, key


class Authority:
    """A certificate authority."""

    def __init__(self) -> None:
        self._ca = trustme.CA()
        self.pem = self._ca.cert_pem.bytes()

    def issue(self, *names: str, common_name: str | None = None, expired: bool = False) -> Pair:
        """A certificate for host names, addresses, URIs or e-mail addresses."""
        now = datetime.now(UTC)
        made = self._ca.issue_cert(
            *names,
            common_name=common_name,
            not_before=now - timedelta(days=30),
            not_after=now + timedelta(days=-1 if expired else 30),
        )
        chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
        return Pair(chain, made.private_key_pem.bytes())

    def write(self, folder: Path, name: str = "ca") -> Path:
        """Its certificate into NAME.pem."""
        path = folder / f"{name}.pem"
        path.write_bytes(self.pem)
        return path


@functools.cache
def authority() -> Authority:
    """The one that the tests trust."""
    return Authority()


@functools.cache
def other_authority() -> Authority:
    """One that they do not."""
    return Authority()


@functools.cache
def server_pair() -> Pair:
    """The certificate of a server on the loopback."""
    return authority().issue("127.0.0.1", "localhost")
