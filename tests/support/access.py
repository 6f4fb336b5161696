"""Access files and servers that have one, for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ddq.access.entries import Entry, changing, now_s
from ddq.access.scopes import Scope, Scopes
from ddq.access.tokens import Sealed, new_id, new_secret, token_text
from ddq.config import Settings


class AccessFile:
    """An access file in a folder; changed as ddq token does it.

    Attributes:
        path: where it is; it is there from the beginning, and empty.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "access.json"
        with changing(self.path):
            pass

    def token(self, *scopes: str, name: str = "test", expires_s: int | None = None) -> str:
        """A new token."""
        entry_id, secret = new_id(), new_secret()
        self._add(scopes, Entry(entry_id, name, Scopes([]), Sealed.of(secret), None, 0, expires_s))
        return token_text(entry_id, secret)

    def certificate(self, text: str, *scopes: str, expires_s: int | None = None) -> None:
        """Scopes for a certificate."""
        self._add(scopes, Entry(new_id(), "test", Scopes([]), None, text, now_s(), expires_s))

    def revoke(self, token: str) -> None:
        """Revokes one token."""
        with changing(self.path) as entries:
            entries[:] = [each for each in entries if each.id != token.split("_")[1]]

    def settings(self, settings: Settings | None = None) -> Settings:
        """The settings of a server that has this file."""
        return replace(settings or Settings(drain_ms=1), access_file=str(self.path))

    def _add(self, scopes: tuple[str, ...], entry: Entry) -> None:
        with changing(self.path) as entries:
            entries.append(replace(entry, scopes=Scopes(map(Scope.parse, scopes))))


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call with a token."""
    return (("authorization", f"Bearer {token}"),)
