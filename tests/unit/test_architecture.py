"""docs/architecture.md and the index of decisions hold against the tree."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.package_map import arrows_drawn, layers, packages
from tests.support.service import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

MAP: Final = (REPOSITORY / "docs" / "architecture.md").read_text()
DECISIONS: Final = REPOSITORY / "docs" / "decisions"
DECISION_FILES: Final = sorted(DECISIONS.glob("[0-9]*.md"))
INDEX: Final = DECISIONS / "README.md"


def drawn(figure: str) -> str:
    """The text of one of the map's figures."""
    (found,) = re.findall(rf"^```{figure}\n(.*?)\n```$", MAP, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_picture_has_the_layers_of_the_import_contract() -> None:
    boxes = [line for line in drawn("layers").splitlines() if line.startswith("  │")]
    names = [re.findall(r"│ (\w+)", line) for line in boxes]
    assert names == layers()


def test_the_picture_has_every_arrow_between_packages() -> None:
    assert drawn("arrows") == arrows_drawn()


def test_each_package_has_a_row() -> None:
    rows = re.findall(r"^\| `(\w+)/` \|", MAP, re.MULTILINE)
    assert Counter(rows) == Counter(packages())
    assert rows == [package for layer in layers() for package in layer]


def test_each_path_of_the_map_exists() -> None:
    paths = set(re.findall(r"`([\w./]+(?:\.py|/))`", MAP))
    roots = (REPOSITORY, REPOSITORY / "feedsvc")
    assert [path for path in paths if not any((root / path).exists() for root in roots)] == []


def test_the_index_lists_each_decision_once() -> None:
    listed = re.findall(r"^- \[(\d{4})\]\(([\w.-]+)\): (.+)$", INDEX.read_text(), re.MULTILINE)
    found = [(file.name[:4], file.name, _title(file.read_text())) for file in DECISION_FILES]
    assert sorted(listed) == found


def test_numbers_of_decisions_are_unique() -> None:
    numbers = Counter(file.name[:4] for file in DECISION_FILES)
    assert [number for number, count in numbers.items() if count > 1] == []


@pytest.mark.parametrize("name", [file.name for file in DECISION_FILES])
def test_a_decision_has_its_number_its_context_and_what_was_decided(name: str) -> None:
    text = (DECISIONS / name).read_text()
    assert re.match(rf"# {name[:4]}[:.] \S", text)
    assert "**Context.**" in text
    assert "**Decision.**" in text


@pytest.mark.parametrize(
    "page",
    sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]),
    ids=lambda page: str(page.relative_to(REPOSITORY)),
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def _title(text: str) -> str:
    """A decision's title without its number."""
    return re.sub(r"^# \d{4}[:.] ", "", text.partition("\n")[0])
