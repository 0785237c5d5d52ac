"""The packages of `feedsvc`, their layers as pyproject.toml has them, and their imports."""

from __future__ import annotations

import ast
import tomllib
from typing import TYPE_CHECKING, Final

from tests.support.service import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCES: Final = REPOSITORY / "feedsvc"


def packages() -> set[str]:
    """The packages on disk."""
    return {folder.name for folder in SOURCES.iterdir() if (folder / "__init__.py").exists()}


def layers() -> list[list[str]]:
    """The layers of the first import contract, the highest first, each with its packages."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    contract = project["tool"]["importlinter"]["contracts"][0]
    assert contract["containers"] == ["feedsvc"]
    split = [layer.split(" | ") for layer in contract["layers"]]
    return [layer for layer in split if layer != ["__main__"]]


def imports() -> dict[str, set[str]]:
    """The packages that each package imports, `streams` among them."""
    found: dict[str, set[str]] = {}
    for package in packages():
        files = (SOURCES / package).rglob("*.py")
        modules = {module for file in files for module in _imported(file)}
        found[package] = {_package(module) for module in modules} - {package, ""}
    return found


def arrows_drawn() -> str:
    """The arrows as docs/architecture.md draws them: a line a package, a column an imported one."""
    order = [package for layer in layers() for package in layer]
    columns = [*order[1:], "streams"]
    found = imports()
    lines = []
    for package in order:
        cells = (
            column if column in found[package] else "·".ljust(len(column)) for column in columns
        )
        lines.append(f"{package:10} ─▶ {' '.join(cells)}".rstrip())
    return "\n".join(lines)


def _imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "feedsvc":
            yield from (f"feedsvc.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _package(module: str) -> str:
    """The package of a module's name; an empty text for a foreign one."""
    top, _, rest = module.partition(".")
    if top == "streams":
        return top
    package = rest.partition(".")[0]
    return package if top == "feedsvc" and package in packages() else ""
