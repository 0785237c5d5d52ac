"""README.md is short, and what it refers to is there."""

from __future__ import annotations

import re
from typing import Final

from tests.support.service import REPOSITORY

README: Final = (REPOSITORY / "README.md").read_text()
MOST_LINES: Final = 150


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= MOST_LINES


def test_each_feature_has_tests_that_exist() -> None:
    """A file's name alone is in the folder of the file before it."""
    table = README.partition("## Features")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| (`[^|]+) \|$", table, re.MULTILINE)
    assert len(rows) == len(re.findall(r"^\| [A-Z]", table, re.MULTILINE)) > 10
    missing = []
    for _, files in rows:
        folder = ""
        for name in re.findall(r"`([^`]+)`", files):
            folder, file = name.rsplit("/", 1) if "/" in name else (folder, name)
            if not (REPOSITORY / folder / file).exists():
                missing.append(f"{folder}/{file}")
    assert missing == []


def test_each_target_that_it_names_is_in_the_makefile() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^(?:`?)make ([a-z-]+)|`make ([a-z-]+)", README, re.MULTILINE))
    names = {name for pair in targets for name in pair if name}
    assert "test-redis" in names
    assert {name for name in names if not re.search(rf"^{name}:", makefile, re.MULTILINE)} == set()
