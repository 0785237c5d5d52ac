"""Copies of binaries, for an account that can't reach the place that they were installed in.

A virtual environment below /root is closed to everyone but root. We don't open up folders that
aren't ours: what is needed goes to the cache once.
"""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from feedsvc.commands.demo.embedded.account import Account
from feedsvc.commands.demo.embedded.errors import explained

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """The folder of copies and the demos' slots: the user's cache, for root the system's.

    Root's home is closed to the account that the servers run as.
    """
    if os.geteuid() == 0:
        return Path("/var/cache/feedsvc")
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(chosen) if Path(chosen).is_absolute() else Path.home() / ".cache"
    return base / "feedsvc"


def copied_beside(
    source: Path, parts: Iterable[Path], name: str, account: Account, cache: Path
) -> Path:
    """A folder in `cache` with `parts` of `source` at the same relative paths.

    Complete or not there at all, also where others make it at the same time.

    Raises:
        EmbeddedError: it can't be written.
    """
    present = [part for part in parts if (source / part).exists()]
    made = cache / f"{name}-{_fingerprint(source, present)}"
    if made.is_dir():
        return made
    account.make_folder(cache)
    logger.info("copying %s from %s to %s", name, source, made)
    with (
        explained(f"copy {name} to {cache}"),
        tempfile.TemporaryDirectory(dir=cache, prefix=f"{name}.") as scratch,
    ):
        _copy(source, present, Path(scratch, "made"))
        _publish(Path(scratch, "made"), made)
    return made


def _fingerprint(source: Path, parts: Iterable[Path]) -> str:
    # Names and sizes rather than a version: they also tell a wheel that was built anew.
    seen = hashlib.sha256()
    for part in parts:
        for path in _files(source / part):
            seen.update(f"{path.relative_to(source)} {path.stat().st_size}\n".encode())
    return seen.hexdigest()[:16]


def _files(part: Path) -> list[Path]:
    return [part] if part.is_file() else sorted(path for path in part.rglob("*") if path.is_file())


def _copy(source: Path, parts: Iterable[Path], target: Path) -> None:
    for part in parts:
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        if (source / part).is_dir():
            shutil.copytree(source / part, target / part)
        else:
            shutil.copy2(source / part, target / part)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _publish(finished: Path, made: Path) -> None:
    try:
        finished.rename(made)
    except OSError:
        if not made.is_dir():  # else another process made the very same in the meantime
            raise
