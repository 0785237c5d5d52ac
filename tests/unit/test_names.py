"""Names of classes and types, one thing each in the whole tree, and how docstrings begin."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support.service import REPOSITORY

_TYPE = re.compile(r"_?[A-Z]\w*[a-z]\w*")  # TypeVars of one letter and CONSTANTS are none
_CLAUSE = re.compile(
    r"(What|Whether|Who|Whoever|Whose|Which|How|Where|When|That|Has|Have|Nobody|Somebody)\b"
)


def test_a_class_or_alias_name_stands_for_one_thing() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for package in ("feedsvc", "streams"):
        for file in sorted((REPOSITORY / package).rglob("*.py")):
            for name in _types_of(file):
                places[name].append(str(file.relative_to(REPOSITORY)))
    assert places
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_a_docstring_begins_with_a_noun_or_a_verb() -> None:
    begun = {
        f"{file.relative_to(REPOSITORY)}:{line}": text
        for package in ("feedsvc", "streams", "examples")
        for file in sorted((REPOSITORY / package).rglob("*.py"))
        for line, text in _docstrings_of(file)
    }
    assert begun
    assert {place: text for place, text in begun.items() if _CLAUSE.match(text)} == {}


@cache
def _nodes(file: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))


def _docstrings_of(file: Path) -> Iterator[tuple[int, str]]:
    """The line and text of each string that stands alone, as those of fields do."""
    for node in _nodes(file):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            value = node.value.value
            if isinstance(value, str):
                yield node.lineno, value.strip()


def _types_of(file: Path) -> Iterator[str]:
    """The classes and type aliases that a module defines, private ones included."""
    for node in _nodes(file):
        names: list[ast.expr] = []
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign):
            names = [node.target]
        elif isinstance(node, ast.Assign) and "TypeVar(" not in ast.unparse(node.value):
            names = node.targets
        yield from (n.id for n in names if isinstance(n, ast.Name) and _TYPE.fullmatch(n.id))
