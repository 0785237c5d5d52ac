"""Settings that had another name once, read under their present one."""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

PREFIX: Final = "FEEDSVC_"

RENAMED: Final[Mapping[tuple[str, str], str]] = {("limits", "couple"): "client"}
"""The present name of a section's key, by the section and the former name."""


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Move what one source of settings gives under a former name to the present one.

    Where the source has both, the present one prevails, key by key. Raises ValueError.
    """
    moved = dict(values)
    for (section, former), present in RENAMED.items():
        given = moved.get(section)
        if not isinstance(given, Mapping) or former not in given:
            continue
        rest = {name: value for name, value in given.items() if name != former}
        old = given[former]
        if isinstance(old, str):  # the section as JSON, in the environment
            old = json.loads(old)
        rest[present] = {**old, **rest.get(present, {})} if isinstance(old, Mapping) else old
        moved[section] = rest
    return moved


def former_variables(variable: str) -> Iterator[str]:
    """The former names of a variable of the environment."""
    for (section, former), present in RENAMED.items():
        now, before = (f"{PREFIX}{section}__{key}".upper() for key in (present, former))
        if variable == now or variable.startswith(f"{now}__"):
            yield before + variable.removeprefix(now)


def warnings(file: Path | None) -> list[str]:
    """A line for each former name in the settings file or the environment, with what to write."""
    lines = []
    plain = tomllib.loads(file.read_text(encoding="utf-8")) if file else {}
    for (section, former), present in RENAMED.items():
        if isinstance(plain.get(section), Mapping) and former in plain[section]:
            lines.append(f"{file}: [{section}.{former}] is now [{section}.{present}]: rename it")
        before, now = (f"{PREFIX}{section}__{key}".upper() for key in (former, present))
        lines += [
            f"{name} is now {now}{name.removeprefix(before)}: rename it"
            for name in sorted(os.environ)
            if name == before or name.startswith(f"{before}__")
        ]
    return lines
