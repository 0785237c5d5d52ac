"""Columns, operators and functions in the masked expressions of a plan."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

_NAME: Final = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
_CALL: Final = re.compile(rf"((?:{_NAME}\.)?{_NAME})\(")
_COMPARED: Final = r"\)?(?:::[\w .\"\[\]]+?)?\)?\s+([-+*/<>=~!@#%^&|`?]+)\s"


def columns_of(expression: str, alias: str) -> list[str]:
    """Columns of the relation with this alias, each once, in their order."""
    found = re.finditer(rf"{_reference(alias)}({_NAME})", expression)
    return list(dict.fromkeys(_plain(each[1]) for each in found))


def compared(expression: str, alias: str) -> Iterator[tuple[str, str]]:
    """Columns of the relation with this alias, each with the operator behind it."""
    for found in re.finditer(rf"{_reference(alias)}({_NAME}){_COMPARED}", expression):
        yield _plain(found[1]), found[2]


def functions_in(expressions: Iterable[str]) -> Iterator[str]:
    """Functions that are called, with their schemas where they have one."""
    for expression in expressions:
        for found in _CALL.finditer(expression):
            yield ".".join(_plain(part) for part in re.findall(_NAME, found[1]))


def _reference(alias: str) -> str:
    quoted = alias.replace('"', '""')
    return rf'(?<![\w."$])(?:{re.escape(alias)}|"{re.escape(quoted)}")\.'


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
