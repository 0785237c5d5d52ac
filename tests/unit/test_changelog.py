"""CHANGELOG.md has a section for the version, and no change twice."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from typing import Final

from tests.support.service import REPOSITORY

CHANGES: Final = (REPOSITORY / "CHANGELOG.md").read_text()


def test_the_version_has_a_section_behind_what_is_unreleased() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    titles = re.findall(r"^## (\S+)", CHANGES, re.MULTILINE)
    assert titles[:2] == ["Unreleased", project["version"]]


def test_the_version_says_what_an_upgrade_needs() -> None:
    newest = re.split(r"^## ", CHANGES, flags=re.MULTILINE)[2]
    assert "### Upgrading" in newest


def test_no_change_is_listed_twice() -> None:
    counts = Counter(line for line in CHANGES.splitlines() if line.startswith("- "))
    assert [line for line, count in counts.items() if count > 1] == []


def test_sections_have_the_names_of_keep_a_changelog() -> None:
    names = re.findall(r"^### (\w+)", CHANGES, re.MULTILINE)
    assert set(names) <= {
        *("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Upgrading"),
    }
