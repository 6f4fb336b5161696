"""ddq token: the access file of servers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from ddq.cli.configured import configured
from ddq.cli.exits import CommandError, ExitCode, UsageError, complain, guarded
from ddq.cli.options import Json, span_option
from ddq.cli.output import emit, say, table

app = typer.Typer(help="Create, list and revoke tokens and scopes.", no_args_is_help=False)

AccessFile = Annotated[
    Path,
    typer.Option(
        "--access-file",
        envvar="DDQ_ACCESS_FILE",
        metavar="FILE",
        help="The file that the servers are given as --access-file.",
    ),
]
"""It has no default: nothing has to be guessed about where servers look."""


@app.command()
@configured
def create(
    name: Annotated[str, typer.Argument(help="For people: who it is for.", show_default=False)],
    access_file: AccessFile,
    scope: Annotated[
        list[str],
        typer.Option(
            "--scope",
            "-s",
            metavar="PATTERN:ACTION,ACTION",
            help="What it allows, such as orders.*:produce or *:read; may be repeated.",
        ),
    ],
    expires: Annotated[
        timedelta | None, span_option("--expires", help="How long it holds; without it no end.")
    ] = None,
    certificate: Annotated[
        str | None,
        typer.Option(
            "--certificate",
            metavar="KIND:VALUE",
            help="No token, but scopes for clients with this certificate, such as "
            "dns:worker-1, uri:spiffe://org/worker or subject:CN=worker-1,O=Org.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Write the token there, readable by you only, not here."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Let a client in: print a new token with scopes. It is shown once, and not kept.

    Actions are produce, consume, read, admin and all. Servers know it within a second.

        ddq token create billing --scope 'orders.*:produce,read' --access-file access.json
    """

    async def run() -> None:
        from ddq.access.entries import (  # noqa: PLC0415 - loaded when used
            AccessFileError,
            Entry,
            changing,
            check_certificate,
            now_s,
        )
        from ddq.access.scopes import Scope, ScopeError, Scopes  # noqa: PLC0415
        from ddq.access.tokens import Sealed, new_id, new_secret, token_text  # noqa: PLC0415

        if certificate is not None and out is not None:
            raise UsageError("--out is for a token; with --certificate there is none")
        entry_id, secret = new_id(), new_secret()
        created_s = now_s()
        try:
            entry = Entry(
                id=entry_id,
                name=name,
                scopes=Scopes(Scope.parse(text) for text in scope),
                created_s=created_s,
                expires_s=created_s + round(expires.total_seconds()) if expires else None,
            )
            if certificate is not None:
                entry = replace(entry, certificate=check_certificate(certificate))
            else:
                entry = replace(entry, sealed=Sealed.of(secret))
        except (ScopeError, AccessFileError) as error:
            raise UsageError(str(error)) from None
        token = token_text(entry_id, secret)
        with _failing(), changing(access_file) as entries:
            entries.append(entry)
            if out is not None:
                _write_secret(out, token)
        document = {"id": entry_id, "name": name, "scopes": [str(s) for s in entry.scopes.all]}
        if certificate is not None:
            document["certificate"] = certificate
        elif out is None:
            document["token"] = token
        if as_json:
            emit(document)
        elif certificate is not None:
            say(f"{entry_id}: {certificate} may {entry.scopes}")
        elif out is not None:
            say(f"{entry_id}: {entry.scopes}; the token is in {out}")
        else:
            complain(f"{entry_id}: {entry.scopes}; the token is shown only now:")
            say(token)

    guarded(run())


@app.command("list")
@configured
def list_tokens(access_file: AccessFile, as_json: Json = False) -> None:
    """List what is known, with its scopes."""

    async def run() -> None:
        from ddq.access.entries import now_s, read_entries  # noqa: PLC0415 - loaded when used

        with _failing():
            entries = read_entries(access_file)
        if as_json:
            for entry in entries:
                emit(
                    {
                        "id": entry.id,
                        "name": entry.name,
                        "scopes": [str(each) for each in entry.scopes.all],
                        "certificate": entry.certificate,
                        "created": _time(entry.created_s),
                        "expires": _time(entry.expires_s),
                        "expired": entry.has_expired(now_s()),
                    }
                )
            return
        table(
            ("id", "name", "scopes", "by", "created", "expires"),
            [
                (
                    entry.id,
                    entry.name,
                    str(entry.scopes),
                    entry.certificate or "token",
                    _time(entry.created_s),
                    "expired" if entry.has_expired(now_s()) else _time(entry.expires_s) or "never",
                )
                for entry in entries
            ],
        )

    guarded(run())


@app.command()
@configured
def revoke(
    which: Annotated[
        list[str], typer.Argument(metavar="ID_OR_NAME...", help="Which.", show_default=False)
    ],
    access_file: AccessFile,
) -> None:
    """Revoke tokens, and the scopes of certificates; open streams end too, within a second."""

    async def run() -> None:
        from ddq.access.entries import changing, read_entries  # noqa: PLC0415 - loaded when used

        with _failing():
            read_entries(access_file)
            with changing(access_file) as entries:
                for one in which:
                    found = [each for each in entries if one in {each.id, each.name}]
                    if not found:
                        raise CommandError(
                            f"no entry has the id or name {one!r}; nothing was changed",
                            ExitCode.NOT_FOUND,
                        )
                    ids = {each.id for each in found}
                    entries[:] = [each for each in entries if each.id not in ids]
        say(f"Revoked: {', '.join(which)}")

    guarded(run())


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    """An access file that cannot be used is one line and an exit status."""
    from ddq.access.entries import AccessFileError  # noqa: PLC0415 - loaded when used

    try:
        yield
    except AccessFileError as error:
        raise CommandError(str(error), ExitCode.USAGE) from None


def _write_secret(path: Path, token: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(f"--out {path} exists; give another name, or remove it first") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{token}\n")


def _time(seconds: int | None) -> str | None:
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
