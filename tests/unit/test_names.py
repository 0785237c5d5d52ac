"""Names of classes and of types: one thing each in the whole tree."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.support.service import REPOSITORY

_TYPE = re.compile(r"_?[A-Z]\w*[a-z]\w*")  # TypeVars of one letter and CONSTANTS are none


def test_a_class_or_alias_name_stands_for_one_thing() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for package in ("feedsvc", "streams"):
        for file in sorted((REPOSITORY / package).rglob("*.py")):
            for name in _types_of(file):
                places[name].append(str(file.relative_to(REPOSITORY)))
    assert places
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def _types_of(file: Path) -> Iterator[str]:
    """The classes and type aliases that a module defines, private ones included."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[ast.expr] = []
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign):
            names = [node.target]
        elif isinstance(node, ast.Assign) and "TypeVar(" not in ast.unparse(node.value):
            names = node.targets
        yield from (n.id for n in names if isinstance(n, ast.Name) and _TYPE.fullmatch(n.id))
