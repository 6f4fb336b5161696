"""Options whose values may also come from the environment or the configuration file.

Each option with an environment variable ``DDQ_…`` is a setting of ddq/config.py. Click parses the
flags, and takes the file's values for its defaults; ddq/configuration.py decides which source
counts and checks what it gives.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ddq.cli.exits import UsageError
from ddq.config import ENV_PREFIX, Configuration, ConfigurationError, Settings, variable

FILE_VARIABLE = "DDQ_CONFIG"


def _read_file(context: typer.Context, file: Path | None) -> Path | None:
    """Makes the values of the file the defaults of the command's options."""
    if file is None:
        return None
    # Late: a command without a file need not load pydantic.
    from ddq.configuration import load_file  # noqa: PLC0415

    try:
        found = load_file(file)
    except ConfigurationError as error:
        raise UsageError(str(error)) from None
    names = {name: _setting(option.envvar) for name, option in _options(context).items()}
    context.default_map = {
        name: found[setting] for name, setting in names.items() if setting in found
    }
    return file


def _config_file(flag: str, *, hidden: bool = False) -> Any:
    return Annotated[
        Path | None,
        typer.Option(
            flag,
            envvar=FILE_VARIABLE,
            metavar="FILE",
            help="Configuration in TOML: drain_ms = 5000 for --drain-ms 5000.",
            is_eager=True,
            callback=_read_file,
            show_default=False,
            hidden=hidden,
        ),
    ]


def _options(context: typer.Context) -> dict[str, Any]:
    """The options of the command that may be set by an environment variable, by name."""
    options: list[Any] = context.command.params
    return {
        each.name: each
        for each in options
        if isinstance(each.envvar, str)
        and each.envvar.startswith(ENV_PREFIX)
        and each.envvar != FILE_VARIABLE
    }


def _setting(variable: str) -> str:
    return variable.removeprefix(ENV_PREFIX).lower()


def configured(command: Callable[..., None], *, flag: str = "--config") -> Callable[..., None]:
    """Gives a command ``--config FILE``, from which it takes what neither flag nor environment has.

    Args:
        command: with an argument of type Settings it gets one flag for each of them:
            ``store_timeout_ms`` becomes ``--store-timeout-ms`` and ``DDQ_STORE_TIMEOUT_MS``. With
            one of type Configuration it is also given where each value comes from.
        flag: another name, for a command that has a ``--config`` of its own; it is not shown.
    """
    own = inspect.signature(command, eval_str=True)
    wants = {
        name: each.annotation
        for name, each in own.parameters.items()
        if each.annotation in {Settings, Configuration}
    }
    flags = _setting_flags() if wants else {}

    @functools.wraps(command)
    def wrapper(*, config_file: Path | None, **given: Any) -> None:
        if wants:
            loaded = _load(given.pop("config_context"), config_file, given)
            for name in flags:
                del given[name]
            known = {Settings: loaded.settings, Configuration: loaded}
            given |= {name: known[kind] for name, kind in wants.items()}
        command(**given)

    parameters = [each for name, each in own.parameters.items() if name not in wants]
    if wants:
        parameters.append(_parameter("config_context", typer.Context))
    file = _config_file(flag, hidden=flag != "--config")
    parameters.append(_parameter("config_file", file, default=None))
    parameters += flags.values()
    wrapper.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters],
        return_annotation=None,
    )
    return wrapper


def _parameter(
    name: str, annotation: Any, *, default: Any = inspect.Parameter.empty
) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _load(context: typer.Context, file: Path | None, given: dict[str, Any]) -> Configuration:
    from ddq.configuration import load  # noqa: PLC0415 - see _read_file

    flags = {
        _setting(option.envvar): _plain(given[name])
        for name, option in _options(context).items()
        if name in given and _is_flag(context, name)
    }
    try:
        return load(flags, file)
    except ConfigurationError as error:
        raise UsageError(str(error)) from None


def _is_flag(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path | str) else value


def _setting_flags() -> dict[str, inspect.Parameter]:
    hints = get_type_hints(Settings)
    return {
        spec.name: _parameter(
            spec.name,
            Annotated[
                hints[spec.name],
                typer.Option(
                    _flag(spec.name, is_switch=hints[spec.name] is bool),
                    envvar=variable(spec.name),
                    help=_sentence(spec.metadata["doc"]),
                    rich_help_panel="Settings",
                ),
            ],
            default=spec.default,
        )
        for spec in fields(Settings)
    }


def _flag(name: str, *, is_switch: bool) -> str:
    dashed = name.replace("_", "-")
    return f"--{dashed}/--no-{dashed}" if is_switch else f"--{dashed}"


def _sentence(text: str) -> str:
    # Not capitalize(): that would turn OVERLOADED into overloaded.
    return f"{text[:1].upper()}{text[1:]}."
