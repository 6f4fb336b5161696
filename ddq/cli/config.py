"""ddq config: what the flags, the environment and the configuration file come to."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from ddq.cli.configured import configured
from ddq.cli.exits import UsageError, complain
from ddq.cli.options import Json
from ddq.cli.output import emit, say, table
from ddq.config import Configuration, StartupError, setting_specs

app = typer.Typer(
    help="Check the configuration, or show each value and where it comes from.",
    no_args_is_help=True,
)
Store = Annotated[
    str | None,
    typer.Option("--store", "-s", envvar="DDQ_STORE", metavar="URL", help="URL of the store."),
]
MASK = "********"


@app.command()
@configured
def check(configuration: Configuration, store: Store = None) -> None:
    """Say what cannot be used in the configuration; exit status 2 if there is something.

    Takes the flags, the environment and the file that `ddq serve` would take, and starts nothing.
    """
    from ddq.access import check_exposure  # noqa: PLC0415 - loads gRPC
    from ddq.configuration import misspelled_variables  # noqa: PLC0415 - loads pydantic
    from ddq.store.topology import StoreUrlError, parse_store_url  # noqa: PLC0415 - loads the store

    problems = misspelled_variables(os.environ)
    try:
        check_exposure(
            configuration.settings,
            listen=configuration.value("listen"),
            metrics_listen=configuration.value("metrics_listen"),
        )
    except StartupError as error:
        problems.append(str(error))
    if store is not None:
        try:
            url = parse_store_url(store, configuration.settings.store_address_map)
            url.check_files()
        except StoreUrlError as error:
            problems.append(f"store: {error}")
    if not problems:
        say("The configuration can be used.")
        return
    for problem in problems[:-1]:
        complain(problem)
    raise UsageError(problems[-1])


@app.command()
@configured
def show(configuration: Configuration, store: Store = None, json: Json = False) -> None:
    """Show each setting, its value and its source: flag, environment, file or default.

    Passwords are not shown.
    """
    del store  # it is part of the configuration
    rows = [
        (name, shown(configuration, name), configuration.origins[name].value)
        for name in sorted(setting_specs())
    ]
    if json:
        emit({name: {"value": value, "source": source} for name, value, source in rows})
    else:
        table(
            ["setting", "value", "source"], [(name, _text(v), source) for name, v, source in rows]
        )


def shown(configuration: Configuration, name: str) -> Any:
    """A value that may be printed: the store's URL has no passwords, other secrets are masked."""
    from ddq.store.topology import StoreUrlError, parse_store_url  # noqa: PLC0415 - loads the store

    value = configuration.value(name)
    if not value or not setting_specs()[name].metadata["secret"]:
        return value
    if name == "store":
        try:
            return str(parse_store_url(value))
        except StoreUrlError:
            # It may hold a password at an unexpected place.
            return MASK
    return MASK


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
