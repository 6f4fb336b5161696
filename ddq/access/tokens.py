"""Tokens: made once, kept as a salted hash, compared in constant time.

A token is ``ddq_ID_SECRET``. The id finds its entry, and is public; the secret has 256 random
bits, so that a fast hash cannot be reversed by trying, and verifying costs a caller nothing that
could be used to keep the server busy. docs/adr/040 has the reasons.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass

PREFIX = "ddq"
_ID_BYTES = 5
_SALT_BYTES = 16
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Sealed:
    """What is kept of a secret: enough to recognise it, and not to send it."""

    salt: bytes
    digest: bytes

    @classmethod
    def of(cls, secret: str) -> Sealed:
        """With a new salt."""
        salt = secrets.token_bytes(_SALT_BYTES)
        return cls(salt, _digest(salt, secret))

    def fits(self, secret: str) -> bool:
        """Whether it is that secret; takes as long whatever the difference is."""
        return hmac.compare_digest(self.digest, _digest(self.salt, secret))


UNKNOWN = Sealed(bytes(_SALT_BYTES), bytes(hashlib.sha256().digest_size))
"""No secret fits; compared where there is no entry, so that the time does not say which ids are."""


def new_id() -> str:
    """A name for an entry: 8 letters and digits."""
    return base64.b32encode(secrets.token_bytes(_ID_BYTES)).decode().lower()


def new_secret() -> str:
    """A secret of 256 random bits."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def token_text(entry_id: str, secret: str) -> str:
    """What a caller sends."""
    return f"{PREFIX}_{entry_id}_{secret}"


def split_token(text: str) -> tuple[str, str] | None:
    """The id and the secret; None: it is not a token of ddq."""
    parts = text.split("_", 2)
    if len(parts) != 3 or parts[0] != PREFIX:
        return None
    return parts[1], parts[2]


def _digest(salt: bytes, secret: str) -> bytes:
    return hashlib.sha256(salt + secret.encode(errors="surrogateescape")).digest()
