"""Copies of the service in which something that keeps tenants apart was left out."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.canaries.readers import SETTINGS
from tests.support.canaries.world import DATASETS_FILE
from tests.support.service import REPOSITORY, Running, serving

_PACKAGES = ("feedsvc", "streams")


@dataclass(frozen=True)
class Change:
    """A text of a file that stands there exactly once, and what takes its place."""

    file: str
    before: str
    after: str

    def apply(self, folder: Path) -> None:
        """Changes the copy. A refactoring that moves the text has to move this one, too."""
        file = folder / self.file
        text = file.read_text(encoding="utf-8")
        assert text.count(self.before) == 1, f"{self.file} has not once: {self.before!r}"
        file.write_text(text.replace(self.before, self.after), encoding="utf-8")


@contextmanager
def serving_mutant(
    database_url: str, folder: Path, changes: Sequence[Change], redis_url: str = ""
) -> Iterator[Running]:
    """A service with these changes, from a copy in an empty folder; without a URL without Redis."""
    for package in _PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / package, folder / package, ignore=ignored)
    for change in changes:
        change.apply(folder)
    # The working directory, where the original is, would come first.
    path = {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    _assert_imported_from(folder, path)
    settings = {**SETTINGS, **path, "REDIS_URL": redis_url}
    with serving(database_url, datasets=DATASETS_FILE, settings=settings) as running:
        yield running


def _assert_imported_from(folder: Path, path: Mapping[str, str]) -> None:
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            "import feedsvc, streams; print(feedsvc.__file__, streams.__file__)",
        ],
        cwd=REPOSITORY,
        env={**os.environ, **path},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [str(folder / package / "__init__.py") for package in _PACKAGES]
    assert found.stdout.split() == expected
