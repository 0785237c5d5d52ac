"""Private names of libraries stand in modules that say so, and nowhere else."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import textwrap
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.support.package_map import SOURCES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALLOWED: Final = {
    "web/protocol/aiohttp_internals.py": "checked at the start by its function `fault`",
    "backends/postgres/asyncpg_internals.py": "checked at the start by its function `fault`",
}
BY_NAME: Final = {"getattr", "hasattr", "setattr", "delattr"}
PUBLIC: Final = {"_asdict", "_fields", "_make", "_replace"}
"""Documented names of named tuples."""


def is_private(name: str) -> bool:
    """Return whether a name is private by its form."""
    if name in PUBLIC or name == "_":
        return False
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def test_each_module_allowed_exists_and_needs_it() -> None:
    for path in ALLOWED:
        file = SOURCES / path
        assert list(findings(file)), f"{path} is free of private names: no exception is needed"


def test_no_private_name_of_a_library() -> None:
    checked = {str(file.relative_to(SOURCES)): file for file in SOURCES.rglob("*.py")}
    found = {path: list(findings(file)) for path, file in checked.items() if path not in ALLOWED}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "planted",
    [
        "from aiohttp.web_protocol import _ErrInfo",
        "import aiohttp._http_parser",
        "def f(server): return server._kwargs",
        "def f(connection): return getattr(connection, '_protocol')",
        "from aiohttp import web\nclass C(web.Server):\n def f(self): return self._connections",
        "from aiohttp import web\nclass C(web.AppRunner):\n async def _make_server(self): ...",
        "from asyncio import Protocol, Task\nclass C(Protocol):\n def f(self, t): t._loop",
        "from aiohttp import web\nclass C(web.RequestHandler):\n def f(self): self._waiter = None",
    ],
)
def test_a_planted_use_is_found(
    planted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "planted_use.py"
    file.write_text(planted)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "planted_use", raising=False)
    assert len(list(findings(file, "planted_use"))) == 1


def test_own_private_names_are_no_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "own_names.py"
    file.write_text(
        "from aiohttp import web\n"
        "class C(web.Server):\n"
        " def f(self, other): self._own = other._own\n"
        " def _mine(self): return self.__class__\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert list(findings(file, "own_names")) == []


def findings(file: Path, module: str | None = None) -> Iterator[str]:
    """Uses of private names that this module does not define itself, each with its line."""
    tree = ast.parse(file.read_text())
    own = _defined(tree)
    for node in ast.walk(tree):
        for name in _used(node):
            if name not in own:
                yield f"line {getattr(node, 'lineno', 0)}: {name}"
    if "class " in file.read_text():
        yield from _inherited(importlib.import_module(module or _module(file)), tree)


def _used(node: ast.AST) -> Iterator[str]:
    """Private names that a node takes from another object than `self` or `cls`."""
    if isinstance(node, ast.Attribute) and is_private(node.attr):
        if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
            yield node.attr
    elif isinstance(node, ast.ImportFrom) and not _is_ours(node):
        path = (node.module or "").split(".")
        yield from filter(is_private, [*path, *(alias.name for alias in node.names)])
    elif isinstance(node, ast.Import):
        for alias in node.names:
            yield from filter(is_private, alias.name.split("."))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BY_NAME:
        texts = [each.value for each in node.args[1:2] if isinstance(each, ast.Constant)]
        yield from (text for text in texts if isinstance(text, str) and is_private(text))


def _is_ours(node: ast.ImportFrom) -> bool:
    return (node.module or "").split(".")[0] in ("feedsvc", "streams")


def _defined(tree: ast.Module) -> set[str]:
    """Private names that a module gives to its own objects."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                found.add(node.attr)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


def _inherited(module: Any, tree: ast.Module) -> Iterator[str]:
    """Private names that a class shares with a base of a library: used, replaced or taken over."""
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        bases = getattr(module, node.name).__mro__[1:]
        theirs = {name for base in bases if not _is_own(base) for name in _names(base)}
        mine = {
            each.attr
            for each in ast.walk(node)
            if isinstance(each, ast.Attribute)
            and isinstance(each.value, ast.Name)
            and each.value.id in ("self", "cls")
        } | {
            each.name
            for each in node.body
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        for name in sorted(mine & theirs):
            yield f"class {node.name}: {name}"


def _is_own(base: type) -> bool:
    return base is object or base.__module__.split(".")[0] in ("feedsvc", "streams")


@cache
def _names(base: type) -> set[str]:
    """The private attributes of a class, those that its methods set among them."""
    names = {*vars(base), *getattr(base, "__slots__", ())}
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
    except (OSError, TypeError):  # it is written in C
        tree = ast.Module([], [])
    names |= {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    return set(filter(is_private, names))


def _module(file: Path) -> str:
    parts = file.relative_to(SOURCES.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")
