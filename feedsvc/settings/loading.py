"""Settings read from a file and the environment, or refused with what is wrong with them."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    TomlConfigSettingsSource,
)

from feedsvc.settings import renamed
from feedsvc.settings.effective import PLAIN_VARIABLES, PlainVariables, Settings
from feedsvc.settings.renamed import PREFIX
from feedsvc.settings.sections import Datasets

_DEFAULT_FILE: Final = Path("config/feedsvc.toml")


class SettingsError(Exception):
    """A setting is unknown or bad; each line of the message names one and where it stands."""


def load(file: Path | None = None) -> Settings:
    """The settings of this file (else `FEEDSVC_CONFIG`, else `config/feedsvc.toml`).

    Raises SettingsError with a line for each unknown key and bad value, or for a file that can't
    be read.
    """
    path = settings_file(file)
    _refuse_unknown_variables()

    class FromFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            environment, toml = (
                InitSettingsSource(settings_cls, renamed.renamed(source()))
                for source in (env_settings, TomlConfigSettingsSource(settings_cls, path))
            )
            return environment, PlainVariables(settings_cls), toml

    try:
        settings = FromFile()
    except ValidationError as error:
        raise SettingsError("\n".join(_lines(error, path))) from None
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    base = path.parent if path else Path()
    datasets = settings.datasets.model_copy(update={"file": base / settings.datasets.file})
    alerts = settings.alerts.model_copy(update={"file": _alerts_file(base, settings.alerts.file)})
    return settings.model_copy(update={"datasets": datasets, "alerts": alerts})


def warnings(file: Path | None = None) -> list[str]:
    """A line for each setting that stands under a former name. Raises SettingsError."""
    return renamed.warnings(settings_file(file))


def named_files(file: Path | None = None) -> tuple[Path, Path | None]:
    """The datasets and the alerts file, also of settings that can't be loaded otherwise."""
    try:
        path = settings_file(file)
        plain = tomllib.loads(path.read_text(encoding="utf-8")) if path else {}
    except (SettingsError, OSError, ValueError):
        path, plain = file, {}
    base = path.parent if path else Path()
    datasets = _named(plain, "datasets") or str(Datasets().file)
    alerts = _named(plain, "alerts")
    return base / datasets, _alerts_file(base, Path(alerts) if alerts else None)


def _named(plain: Mapping[str, Any], section: str) -> str | None:
    """The file that a section names, as text, where it names one."""
    stands = plain.get(section)
    text = stands.get("file") if isinstance(stands, Mapping) else None
    return os.environ.get(f"{PREFIX}{section}__file".upper()) or (
        text if isinstance(text, str) else None
    )


def _alerts_file(base: Path, named: Path | None) -> Path | None:
    if named is not None:
        return base / named
    usual = base / "alerts.toml"
    return usual if usual.is_file() else None


def settings_file(file: Path | None) -> Path | None:
    """The settings file that is in force, None where there is none and none was asked for."""
    named = os.environ.get("FEEDSVC_CONFIG")
    asked = file or (Path(named) if named else None)
    if asked is not None:
        if not _is_file(asked):
            raise SettingsError(f"{asked}: there is no such settings file")
        return asked
    return _DEFAULT_FILE if _is_file(_DEFAULT_FILE) else None


def _is_file(path: Path) -> bool:
    """Raises SettingsError, as for a folder that may not be searched."""
    try:
        return path.is_file()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path | None, error: OSError) -> SettingsError:
    return SettingsError(f"{error.filename or path}: can't be read: {error.strerror}")


def _refuse_unknown_variables() -> None:
    """Environment sources read what they know and pass over the rest: a typo must not be quiet."""
    known = set(_variables(PREFIX.removesuffix("_"), Settings, "_"))
    known |= {former for name in known for former in renamed.former_variables(name)}
    meant = {name.replace("__", "_"): name for name in known}
    wrong = []
    for name, value in sorted(os.environ.items()):
        if not name.startswith(PREFIX) or name in known:
            continue
        almost = meant.get(name.replace("__", "_"))
        # As FEEDSVC_SERVER_PORT is, where a service is named feedsvc-server.
        is_kubernetes = value.startswith(("tcp://", "udp://", "sctp://"))
        if "__" in name or (almost is not None and not is_kubernetes):
            advice = "" if almost is None else f"; write {almost}"
            wrong.append(f"{name}: there is no such setting{advice}")
    if wrong:
        raise SettingsError("\n".join(wrong))


def _variables(prefix: str, model: Any, between: str = "__") -> Iterator[str]:
    """The variable of each section and of each setting below."""
    for field, info in getattr(model, "model_fields", {}).items():
        name = f"{prefix}{between}{field}".upper()
        yield name
        yield from _variables(name, info.annotation)


def _lines(error: ValidationError, path: Path | None) -> list[str]:
    lines = []
    for item in error.errors():
        place = [str(part) for part in item["loc"]]
        where = _variable(place) or f"{path or 'settings'}: {'.'.join(place)}"
        what = "there is no such setting" if item["type"] == "extra_forbidden" else item["msg"]
        lines.append(f"{where}: {what}")
    return lines


def _variable(place: list[str]) -> str | None:
    """The variable that set what stands at this place, or the list that it stands in."""
    for end in range(len(place), 0, -1):
        variable = PREFIX + "__".join(place[:end]).upper()
        for name in (variable, *renamed.former_variables(variable)):
            if name in os.environ:
                return name
    plain = [name for name, key in PLAIN_VARIABLES.items() if [*key] == place]
    return next((name for name in plain if os.environ.get(name)), None)
