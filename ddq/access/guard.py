"""The guard of a server: who a caller is, and whether it may do what it asks for.

A caller is known by the token of its call, or else by the certificate of its connection. What was
found is remembered, and forgotten when the access file changes; calls that wait for long are then
checked again and ended. Every decision is made here, in ``caller`` and ``refusal``; rules.py says
what each RPC needs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ddq.access.entries import AccessFileError, Entry, read_entries
from ddq.access.files import Signature, signature
from ddq.access.rules import Rule
from ddq.access.scopes import Scope, Scopes
from ddq.access.tokens import UNKNOWN, split_token
from ddq.config import Settings, StartupError
from ddq.errors import DdqError, PermissionDenied, Unauthenticated

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 0.25
"""How often the access file is looked at: a revocation is effective within a second."""
KNOWN_MAX_COUNT = 10_000
"""Tokens and certificates that are remembered; then all are forgotten, and verified again."""
_NEVER_S = float("inf")
HEADER = "authorization"
_BEARER = "bearer "

_HOW = (
    "send a token as the metadata 'authorization: Bearer TOKEN' (ddq: --token-file or "
    "DDQ_TOKEN_FILE)"
)
_NEW = "ask the operator for a new one (ddq token create)"

_PROPERTIES = {
    "peer_dns": "dns",
    "peer_uri": "uri",
    "peer_email": "email",
    "peer_ip": "ip",
    "x509_common_name": "cn",
    "x509_subject": "subject",
}
"""What gRPC says of a verified certificate, and how entries name it."""
_CERTIFICATE = "x509_pem_cert"

Properties: TypeAlias = Mapping[str, Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Caller:
    """One that is known.

    Attributes:
        name: for messages and logs.
        scopes: what it may do.
        expires_s: seconds since 1970 until which it is known; None: no end.
    """

    name: str
    scopes: Scopes
    expires_s: int | None = None


@dataclass(eq=False, slots=True)
class Waiting:
    """A call that may last for long.

    Attributes:
        task: handles it.
        refused: why it was ended; None: it was not.
    """

    task: asyncio.Task[Any]
    rule: Rule
    context: Any
    topics: Sequence[str] | None
    refused: DdqError | None = None


class Guard:
    """Decides for each call of a server.

    Args:
        path: the access file.

    Raises:
        StartupError: it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: Mapping[str, Entry] = {}
        self._certificates: Mapping[str, Sequence[Entry]] = {}
        self._known: dict[str | bytes, Caller] = {}
        self._waiting: set[Waiting] = set()
        self._next_end_s = _NEVER_S
        self._signature: Signature = signature(path)
        try:
            self._take(read_entries(path))
        except AccessFileError as error:
            raise StartupError(str(error)) from None

    @classmethod
    def of(cls, settings: Settings) -> Guard | None:
        """The guard that the settings ask for; None: everyone may do everything.

        Raises:
            StartupError: the access file cannot be used.
        """
        return cls(Path(settings.access_file)) if settings.access_file else None

    # Deciding

    def caller(self, context: Any) -> Caller | Unauthenticated:
        """Who makes a call, or why it is refused before its request is read.

        Args:
            context: of gRPC, with the metadata and the verified certificate of the peer.
        """
        for key, value in context.invocation_metadata() or ():
            if key == HEADER:
                return self._by_header(value)
        return self._by_certificate(context.auth_context())

    def refusal(self, rule: Rule, caller: Caller, request: Any) -> PermissionDenied | None:
        """Why a request of a caller is refused; None: it is allowed."""
        if rule.action is None:
            return None
        return self._denied(rule, caller, rule.named(request))

    def refusal_of_header(self, rule: Rule, header: str | None) -> DdqError | None:
        """The same for a request over HTTP, which is about every topic."""
        caller = self._by_header(header)
        return caller if isinstance(caller, DdqError) else self._denied(rule, caller, None)

    def _denied(
        self, rule: Rule, caller: Caller, topics: Sequence[str] | None
    ) -> PermissionDenied | None:
        assert rule.action is not None
        if topics is None:
            if caller.scopes.allow_everywhere(rule.action):
                return None
            needed = Scope("*", frozenset({rule.action}))
        else:
            if caller.scopes.allow(rule.action, topics):
                return None
            missing = next(each for each in topics if not caller.scopes.allow(rule.action, [each]))
            needed = Scope(missing, frozenset({rule.action}))
        return PermissionDenied(
            f"{caller.name} needs the scope {needed} and has {caller.scopes}; ask the operator "
            "for a token with it (ddq token create --scope)",
            metadata={"needs": str(needed)},
        )

    def _by_header(self, header: str | bytes | None) -> Caller | Unauthenticated:
        known = self._known.get(header) if header is not None else None
        if known is None:
            if not isinstance(header, str) or header[: len(_BEARER)].lower() != _BEARER:
                return Unauthenticated(f"the call has no token; {_HOW}")
            found = self._verify(header[len(_BEARER) :].strip())
            if isinstance(found, DdqError):
                return found
            known = self._remember(header, found)
        if known.expires_s is not None and time.time() >= known.expires_s:
            return Unauthenticated(f"the token of {known.name} has expired; {_NEW}")
        return known

    def _verify(self, token: str) -> Caller | Unauthenticated:
        parts = split_token(token)
        entry = self._entries.get(parts[0]) if parts is not None else None
        sealed = entry.sealed if entry is not None and entry.sealed is not None else UNKNOWN
        # Compared whether there is an entry or not, so that the time is the same.
        fits = sealed.fits(parts[1] if parts is not None else "")
        if not fits or entry is None:
            return Unauthenticated(f"the token is not known here, or was revoked; {_NEW}")
        return Caller(f"token {entry.id} ({entry.name})", entry.scopes, entry.expires_s)

    def _by_certificate(self, properties: Properties) -> Caller | Unauthenticated:
        pem = next(iter(properties.get(_CERTIFICATE, ())), None)
        if pem is None:
            return Unauthenticated(f"the call has no token; {_HOW}")
        known = self._known.get(pem)
        if known is None:
            names = [
                f"{kind}:{value.decode(errors='replace')}"
                for name, kind in _PROPERTIES.items()
                for value in properties.get(name, ())
            ]
            now_s = time.time()
            entries = [
                entry
                for name in names
                for entry in self._certificates.get(name, ())
                if not entry.has_expired(now_s)
            ]
            if not entries:
                return Unauthenticated(
                    f"no entry names the certificate ({', '.join(names)}), and the call has no "
                    "token; ask the operator for one (ddq token create --certificate KIND:VALUE), "
                    f"or {_HOW}"
                )
            known = self._remember(pem, _together(entries))
        if known.expires_s is not None and time.time() >= known.expires_s:
            # Another of its entries may still hold.
            del self._known[pem]
            return self._by_certificate(properties)
        return known

    def _remember(self, key: str | bytes, caller: Caller) -> Caller:
        if len(self._known) >= KNOWN_MAX_COUNT:
            self._known.clear()
        self._known[key] = caller
        return caller

    # Following the file

    async def follow(self) -> None:
        """Reads the access file again whenever it changes, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            changed = (found := signature(self._path)) != self._signature
            if changed:
                self._signature = found
                self._reload()
            if changed or time.time() >= self._next_end_s:
                self._check_waiting()

    def _reload(self) -> None:
        try:
            entries = read_entries(self._path)
        except AccessFileError as error:
            log.error("%(error)s; what it said before stays in effect", {"error": error})  # noqa: TRY400 - one line
            return
        self._take(entries)
        log.info(
            "the access file was read again: %(entries_count)d entries",
            {"entries_count": len(entries)},
        )

    def _take(self, entries: Sequence[Entry]) -> None:
        certificates: dict[str, list[Entry]] = {}
        for entry in entries:
            if entry.certificate is not None:
                certificates.setdefault(entry.certificate, []).append(entry)
        self._entries = {entry.id: entry for entry in entries}
        self._certificates = certificates
        self._known.clear()
        self._note_next_end()

    def _note_next_end(self) -> None:
        now_s = time.time()
        ends = (entry.expires_s for entry in self._entries.values())
        self._next_end_s = min((e for e in ends if e is not None and e > now_s), default=_NEVER_S)

    # Calls that last

    @contextmanager
    def waiting(self, rule: Rule, context: Any, topics: Sequence[str] | None) -> Iterator[Waiting]:
        """The current task handles a call that is ended when its caller loses what it needs.

        Args:
            topics: those that it is about.
        """
        task = asyncio.current_task()
        assert task is not None
        call = Waiting(task, rule, context, topics)
        self._waiting.add(call)
        try:
            yield call
        finally:
            self._waiting.discard(call)

    def _check_waiting(self) -> None:
        self._note_next_end()
        for call in tuple(self._waiting):
            caller = self.caller(call.context)
            if isinstance(caller, DdqError):
                call.refused = caller
            elif call.rule.action is not None and call.topics is not None:
                call.refused = self._denied(call.rule, caller, call.topics)
            if call.refused is not None:
                self._waiting.discard(call)
                call.task.cancel()


def _together(entries: Sequence[Entry]) -> Caller:
    """One caller with the scopes of several entries."""
    ends = [entry.expires_s for entry in entries if entry.expires_s is not None]
    return Caller(
        f"certificate {entries[0].certificate} ({entries[0].name})",
        Scopes(scope for entry in entries for scope in entry.scopes.all),
        min(ends, default=None),
    )
