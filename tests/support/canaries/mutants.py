"""Copies of the service in which something that keeps tenants apart was left out."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.canaries.readers import SETTINGS
from tests.support.canaries.world import DATASETS_FILE
from tests.support.fork_server import OTHER_CODE
from tests.support.service import REPOSITORY, Running, serving

_PACKAGES = ("feedsvc", "streams")
_IS_MUTANT = "imported"


@dataclass(frozen=True)
class Change:
    """A text of a file that stands there exactly once, and what takes its place."""

    file: str
    before: str
    after: str

    def apply(self, folder: Path) -> None:
        """Change the copy. A refactoring that moves the text has to move this one, too."""
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
        # With what Python has compiled, or three processes would each compile all of it once more.
        shutil.copytree(REPOSITORY / package, folder / package)
    for change in changes:
        change.apply(folder)
    with (folder / "feedsvc" / "__init__.py").open("a") as file:
        file.write(f"print({_IS_MUTANT!r}, __file__, flush=True)\n")
    settings = {**SETTINGS, OTHER_CODE: str(folder), "REDIS_URL": redis_url}
    with serving(database_url, datasets=DATASETS_FILE, settings=settings) as running:
        reported = [line.split()[-1] for line in running.log if line.startswith(_IS_MUTANT)]
        assert set(reported) == {str(folder / "feedsvc" / "__init__.py")}
        yield running
