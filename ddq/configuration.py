"""The configuration of a process: flags before the environment, before a file, before defaults.

`pydantic-settings` reads the environment (``DDQ_DRAIN_MS``) and a TOML file (``drain_ms = 5000``),
and checks types and bounds. The settings themselves are described in ddq/config.py, which the
client library imports without pydantic.
"""

from __future__ import annotations

import difflib
import functools
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from pydantic import Field, ValidationError, create_model, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from ddq.config import (
    ENV_PREFIX,
    LIMITS,
    Configuration,
    ConfigurationError,
    Origin,
    ProcessSettings,
    Settings,
    setting_names,
    setting_specs,
    variable,
)

_OTHER_VARIABLES = {"DDQ_CONFIG", "DDQ_TOKEN"}
"""A file may hold a token only if it holds nothing else: token_file."""
_SIMILARITY = 0.8
"""From which on an unknown variable of the environment is taken for a misspelled setting."""


# What pydantic checks ----------------------------------------------------------------------------


class _Checked(BaseSettings):
    """The base of both models: no source but the arguments, unless a subclass adds some."""

    # An empty variable means that it is not set, as for the flags.
    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The arguments only: files with secrets or .env files are not looked for."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @model_validator(mode="after")
    def _requests_are_remembered(self) -> _Checked:
        given: Any = self
        if given.max_request_age_ms + 2 * given.max_clock_skew_ms > (
            LIMITS.tombstone_retention_max_ms
        ):
            raise PydanticCustomError(
                "retention",
                "max_request_age_ms plus twice max_clock_skew_ms exceeds the longest tombstone "
                "retention of {limit} ms; lower one of them",
                {"limit": LIMITS.tombstone_retention_max_ms},
            )
        return self


class _Sourced(_Checked):
    """Reads the environment and a file too."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """In the order of their strength."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def _definitions(*kinds: type[Settings | ProcessSettings]) -> dict[str, Any]:
    """The fields of a model, from the descriptions in ddq/config.py."""
    made: dict[str, Any] = {}
    for kind in kinds:
        hints = get_type_hints(kind)
        for spec in fields(kind):
            about = spec.metadata
            hint = hints[spec.name]
            if about["choices"]:
                hint = Literal[about["choices"]]
                hint = hint if spec.default is not None else hint | None
            options = {"ge": about["least"], "le": about["most"]}
            if about["pattern"]:
                options["pattern"] = f"^(?:{about['pattern']})$"
            made[spec.name] = (hint, Field(spec.default, description=about["doc"], **options))
    return made


@functools.cache
def _settings_model() -> type[_Checked]:
    model: type[_Checked] = create_model("Settings", __base__=_Checked, **_definitions(Settings))
    return model


@functools.cache
def _file_model() -> type[_Checked]:
    model: type[_Checked] = create_model(
        "File", __base__=_Checked, **_definitions(Settings, ProcessSettings)
    )
    return model


def _configuration_model(file: Path | None) -> type[_Sourced]:
    class FromFile(_Sourced):
        model_config = SettingsConfigDict(toml_file=file)

    model: type[_Sourced] = create_model(
        "Configuration", __base__=FromFile, **_definitions(Settings, ProcessSettings)
    )
    return model


# What is called -----------------------------------------------------------------------------------


def check_settings(settings: Settings) -> None:
    """Raises ConfigurationError, with a line for each setting that cannot be used."""
    try:
        _settings_model()(**asdict(settings))
    except ValidationError as error:
        raise ConfigurationError(*(_problem(each) for each in error.errors())) from None


def load(flags: Mapping[str, Any] = {}, file: Path | None = None) -> Configuration:
    """The configuration from flags, the environment and a file.

    Args:
        flags: the values of the flags that were given, by the names of the settings.
        file: in TOML; None: no file.

    Raises:
        ConfigurationError: a value or key cannot be used, or the file cannot be read.
    """
    if file is not None:
        _check_readable(file)
    model = _configuration_model(file)
    given = {
        Origin.FLAG: flags,
        Origin.ENVIRONMENT: EnvSettingsSource(model)(),
        Origin.FILE: TomlConfigSettingsSource(model)(),
    }
    origins = {
        name: next((origin for origin, found in given.items() if name in found), Origin.DEFAULT)
        for name in setting_specs()
    }
    try:
        made = model(**flags).model_dump()
    except ValidationError as error:
        raise ConfigurationError(
            *(_problem(each, origins, file) for each in error.errors())
        ) from None
    settings = {name: made.pop(name) for name in setting_names(Settings)}
    return Configuration(Settings(**settings), ProcessSettings(**made), origins)


def load_file(file: Path) -> Mapping[str, Any]:
    """The settings that a file has, by name; the environment is not looked at.

    Raises:
        ConfigurationError: the file cannot be read, or has a value or key that cannot be used.
    """
    _check_readable(file)
    found: dict[str, Any] = TomlConfigSettingsSource(_configuration_model(file))()
    try:
        _file_model()(**found)
    except ValidationError as error:
        origins = dict.fromkeys(found, Origin.FILE)
        raise ConfigurationError(
            *(_problem(each, origins, file) for each in error.errors())
        ) from None
    return found


def misspelled_variables(environment: Mapping[str, str]) -> list[str]:
    """One line for each variable that looks like one of a setting, but is none.

    Others that begin with DDQ_ are left alone: ``ddq work`` gives some to its command, and
    Kubernetes makes some for a service that is called ddq.
    """
    known = [variable(name) for name in setting_specs()]
    found = []
    for name in sorted(environment):
        if name.startswith(ENV_PREFIX) and name not in {*known, *_OTHER_VARIABLES}:
            near = difflib.get_close_matches(name, known, 1, _SIMILARITY)
            if near:
                found.append(f"{name} in the environment is not a setting; did you mean {near[0]}?")
    return found


def _check_readable(file: Path) -> None:
    try:
        with file.open("rb") as opened:
            tomllib.load(opened)
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is not TOML: {error}") from None


def _problem(
    error: ErrorDetails,
    origins: Mapping[str, Origin] = {},
    file: Path | None = None,
) -> str:
    """One line: the setting, where its value comes from, and what it has to be."""
    if not error.get("loc"):
        return str(error["msg"])
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, setting_specs(), 1, 0)
        return f"{name} in {file} is not a setting; did you mean {near[0]}?"
    origin = origins.get(name)
    where = {
        Origin.ENVIRONMENT: f" ({variable(name)})",
        Origin.FILE: f" (in {file})",
    }.get(origin or Origin.DEFAULT, "")
    about = setting_specs()[name].metadata
    value = "" if about["secret"] else f"is {error['input']!r}"
    if about["choices"]:
        return f"{name}{where} {value}; give one of {', '.join(about['choices'])}"
    if about["pattern"]:
        return f"{name}{where} {value}; expected HOST:PORT"
    return f"{name}{where} {value or 'cannot be used'}; it has to be {_allowed(error)}"


_ALLOWED = {
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "a text",
}


def _allowed(error: ErrorDetails) -> str:
    form = _ALLOWED.get(error["type"])
    if form is not None:
        return form.format(**error.get("ctx", {}))
    return error["msg"].removeprefix("Input should be ")
