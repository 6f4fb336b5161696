"""The flags of commands that talk to a server: TLS, the client's certificate and its token."""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from ddq.cli.exits import UsageError
from ddq.client import Access, AccessError
from ddq.client.access import VARIABLES

_PANEL = "Access"


@dataclass(frozen=True, slots=True)
class _Flag:
    annotation: Any
    names: tuple[str, ...]
    help: str
    default: Any = None


_FLAGS = {
    "tls": _Flag(
        bool, ("--tls",), "Use TLS, and trust the certificate authorities of the system.", False
    ),
    "tls_ca": _Flag(
        str | None, ("--tls-ca",), "CA certificates to trust in their place, PEM; implies --tls."
    ),
    "tls_cert": _Flag(
        str | None, ("--tls-cert",), "Certificate of this client, PEM; implies --tls."
    ),
    "tls_key": _Flag(
        str | None, ("--tls-key",), "Its private key, PEM, unless that is in the first file."
    ),
    "token_file": _Flag(
        str | None, ("--token-file",), "File with the token to send; or the token in DDQ_TOKEN."
    ),
    "plain_token": _Flag(
        bool, ("--plain-token",), "Send the token without TLS to other machines too.", False
    ),
}
"""There is none for the token itself: command lines can be read by every user of the machine."""


def with_access(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command with an argument ``access: Access`` the flags that it is made of."""
    own = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def wrapper(**given: Any) -> Any:
        named = {name: given.pop(name) for name in _FLAGS}
        try:
            if token := os.environ.get(VARIABLES["token"]):
                # A file that is named counts for more than the environment.
                named["token"] = None if named["token_file"] else token
            access = Access(**named)
            access.credentials()
        except AccessError as error:
            raise UsageError(_as_flags(str(error))) from None
        return command(access=access, **given)

    flags = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=flag.default,
            annotation=Annotated[
                flag.annotation,
                typer.Option(
                    *flag.names,
                    envvar=VARIABLES[name],
                    metavar=None if flag.annotation is bool else "FILE",
                    help=flag.help,
                    rich_help_panel=_PANEL,
                ),
            ],
        )
        for name, flag in _FLAGS.items()
    ]
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in own.parameters.items()
        if name != "access"
    ]
    wrapper.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[*parameters, *flags]
    )
    return wrapper


def _as_flags(text: str) -> str:
    return re.sub(
        r"\b(?:" + "|".join(_FLAGS) + r")\b(?=[ ;,)])", lambda name: _FLAGS[name[0]].names[0], text
    )
