"""Neither code nor pages rely on LISTEN and NOTIFY, which poolers of transactions take away."""

import re
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).parents[2]
PLACES: Final = ("feedsvc", "streams", "docs", "config", "examples", "README.md")
ENDINGS: Final = frozenset({".py", ".sql", ".md", ".toml", ".mjs", ".lua"})
PAST: Final = "decisions"
"""The folder of decisions, which have what was once so."""
SIGNALLING: Final = re.compile(
    r"\b(?:UN)?LISTEN\b|\bNOTIFY\b|pg_notify|pg_listening_channels|add_listener\("
)


def files_of(place: Path) -> list[Path]:
    found = [place] if place.is_file() else sorted(place.rglob("*"))
    return [f for f in found if f.suffix in ENDINGS and PAST not in f.parts]


@pytest.mark.parametrize("place", PLACES)
def test_nothing_listens_or_notifies(place: str) -> None:
    found = files_of(REPOSITORY / place)
    assert found
    assert [f for f in found if SIGNALLING.search(f.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    "planted", ["LISTEN feedsvc_changes", "SELECT pg_notify($1, $2)", "await c.add_listener(x, y)"]
)
def test_a_planted_use_is_found(planted: str) -> None:
    assert SIGNALLING.search(planted)
