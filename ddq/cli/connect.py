"""Commands that talk to a server: their connection, the flags that they share, their result."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ddq.cli.access import with_access
from ddq.cli.configured import configured
from ddq.cli.exits import UsageError, guarded
from ddq.cli.options import DEFAULT_TIMEOUT, Address, Json, Timeout
from ddq.cli.output import emit, say
from ddq.client import Access, AccessError, Client
from ddq.config import DEFAULT_ADDRESS

Connect = Callable[[], contextlib.AbstractAsyncContextManager[Client]]
"""Connects to the server that the flags name."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a command prints.

    Attributes:
        document: with ``--json``.
        text: otherwise; a function prints more than one line.
    """

    document: Mapping[str, Any]
    text: str | Callable[[], None]

    def show(self, *, as_json: bool) -> None:
        """Prints it on stdout."""
        if as_json:
            emit(self.document)
        elif isinstance(self.text, str):
            say(self.text)
        else:
            self.text()


@contextlib.asynccontextmanager
async def connected(address: str, time_limit: timedelta, access: Access) -> AsyncIterator[Client]:
    """A client whose server answers.

    A person who waits should learn at once that no server is there, not at the end of the deadline.

    Raises:
        TransportError: no server is there.
        UsageError: ``access`` cannot be used for this address.
    """
    try:
        made = Client(address, timeout_s=time_limit.total_seconds(), access=access)
    except AccessError as error:
        raise UsageError(str(error)) from None
    async with made as client:
        await client.connect()
        yield client


def on_server(
    command: Callable[..., Coroutine[Any, Any, Result | None]],
) -> Callable[..., None]:
    """Makes a coroutine function with an argument ``connect: Connect`` a command.

    The command also has ``--json``, ``--address``, ``--timeout``, ``--config`` and the flags of
    with_access. ``--json`` decides how its result is printed; a function that prints by itself has
    an argument
    ``as_json: Json = False``.
    """
    own = inspect.signature(command, eval_str=True)
    prints_itself = "as_json" in own.parameters

    @functools.wraps(command)
    def wrapper(
        *, address: str, timeout: timedelta, access: Access, as_json: bool, **given: Any
    ) -> None:
        if prints_itself:
            given["as_json"] = as_json

        async def run() -> None:
            result = await command(connect=lambda: connected(address, timeout, access), **given)
            if result is not None:
                result.show(as_json=as_json)

        guarded(run())

    parameters = [each for name, each in own.parameters.items() if name != "connect"]
    if not prints_itself:
        parameters.append(_flag("as_json", Json, default=False))
    parameters.append(_flag("address", Address, default=DEFAULT_ADDRESS))
    parameters.append(_flag("timeout", Timeout, default=DEFAULT_TIMEOUT))
    parameters.append(_flag("access", Access, default=Access()))
    wrapper.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters],
        return_annotation=None,
    )
    return configured(with_access(wrapper))


def _flag(name: str, annotation: Any, *, default: object) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
