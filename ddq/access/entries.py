"""The access file: who is known, by a token or a certificate, and with which scopes.

One JSON document, which ``ddq token`` writes and a server reads again when it changes. It has no
secret, only salted hashes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ddq.access.scopes import Scope, ScopeError, Scopes
from ddq.access.tokens import Sealed

VERSION = 1
CERTIFICATE_NAMES = ("dns", "uri", "email", "ip", "cn", "subject")
"""What of a client's certificate an entry may name: KIND:VALUE."""
_ID = re.compile(r"[a-z0-9-]{1,64}")


class AccessFileError(ValueError):
    """The access file cannot be used; one line says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One that is known.

    Attributes:
        id: names the entry; is part of its token.
        name: for people.
        scopes: what it may do.
        sealed: the secret of its token, hashed; None: it has a certificate.
        certificate: KIND:VALUE, which its certificate has; None: it has a token.
        created_s, expires_s: seconds since 1970; an entry without an end has None.
    """

    id: str
    name: str
    scopes: Scopes = field(compare=False)
    sealed: Sealed | None = field(default=None, repr=False)
    certificate: str | None = None
    created_s: int = 0
    expires_s: int | None = None

    def has_expired(self, now_s: float) -> bool:
        """Whether its time is over."""
        return self.expires_s is not None and now_s >= self.expires_s


def check_certificate(text: str) -> str:
    """KIND:VALUE, as an entry may name it.

    Raises:
        AccessFileError: it is not that.
    """
    kind, colon, value = text.partition(":")
    if not colon or not value or kind not in CERTIFICATE_NAMES:
        kinds = ", ".join(CERTIFICATE_NAMES)
        raise AccessFileError(
            f"invalid certificate {text!r}; give KIND:VALUE with one of {kinds}, such as "
            "dns:worker-1.example.org"
        )
    return text


def read_entries(path: Path) -> Sequence[Entry]:
    """What the file contains.

    Raises:
        AccessFileError: it is missing, cannot be read, or could be written by everyone.
    """
    name = f"access_file {str(path)!r}"
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read()
    except FileNotFoundError:
        raise AccessFileError(
            f"{name} does not exist; make it: ddq token create NAME --scope SCOPE --access-file "
            f"{path}"
        ) from None
    except OSError as error:
        raise AccessFileError(f"{name} cannot be read: {error.strerror or error}") from None
    if mode & stat.S_IWOTH:
        raise AccessFileError(f"{name} can be written by everyone; chmod o-w {path}")
    try:
        return _parse(json.loads(data))
    except (ValueError, KeyError, TypeError) as error:
        raise AccessFileError(f"{name} is malformed: {_why(error)}") from None


@contextlib.contextmanager
def changing(path: Path) -> Iterator[list[Entry]]:
    """The entries, for a change; written in one step when the block ends without an error.

    A file that does not exist yet is created. Others that change it meanwhile wait.

    Raises:
        AccessFileError: it cannot be read or written.
    """
    path = path.resolve()
    try:
        with _locked(path):
            entries = list(read_entries(path)) if path.exists() else []
            yield entries
            _write(path, entries)
    except OSError as error:
        raise AccessFileError(
            f"access_file {str(path)!r} cannot be written: {error.strerror or error}"
        ) from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The folder, since the file itself is replaced.
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, entries: Sequence[Entry]) -> None:
    document = {"version": VERSION, "entries": [_document(entry) for entry in entries]}
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if path.exists():
                # A server of another user continues to read it.
                before = path.stat()
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
            json.dump(document, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _document(entry: Entry) -> Mapping[str, Any]:
    found: dict[str, Any] = {
        "id": entry.id,
        "name": entry.name,
        "scopes": [str(scope) for scope in entry.scopes.all],
        "created": _time_text(entry.created_s),
    }
    if entry.expires_s is not None:
        found["expires"] = _time_text(entry.expires_s)
    if entry.certificate is not None:
        found["certificate"] = entry.certificate
    if entry.sealed is not None:
        found |= {"salt": entry.sealed.salt.hex(), "sha256": entry.sealed.digest.hex()}
    return found


def _parse(document: Any) -> Sequence[Entry]:
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise ValueError(f"it is not of version {VERSION}")
    entries = [_entry(each) for each in document["entries"]]
    if len({entry.id for entry in entries}) < len(entries):
        raise ValueError("two entries have the same id")
    return entries


def _entry(given: Any) -> Entry:
    unknown = set(given) - {
        "id", "name", "scopes", "created", "expires", "certificate", "salt", "sha256",
    }  # fmt: skip
    if unknown:
        # A setting that is not understood might have been meant as a restriction.
        raise ValueError(f"an entry has the unknown field {min(unknown)!r}")
    if not _ID.fullmatch(given["id"]):
        raise ValueError(f"invalid id {given['id']!r}")
    sealed = None
    if "sha256" in given:
        sealed = Sealed(bytes.fromhex(given["salt"]), bytes.fromhex(given["sha256"]))
    certificate = check_certificate(given["certificate"]) if "certificate" in given else None
    scopes = Scopes(Scope.parse(text) for text in given.get("scopes", ()))
    if (sealed is None) == (certificate is None):
        raise ValueError(f"entry {given['id']} needs either salt and sha256, or certificate")
    return Entry(
        id=given["id"],
        name=given["name"],
        scopes=scopes,
        sealed=sealed,
        certificate=certificate,
        created_s=_time_s(given["created"]) if "created" in given else 0,
        expires_s=_time_s(given["expires"]) if "expires" in given else None,
    )


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    if isinstance(error, ScopeError | AccessFileError):
        return str(error)
    return str(error) or type(error).__name__


def _time_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time_s(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def now_s() -> int:
    """Seconds since 1970."""
    return int(time.time())
