"""PostgreSQL's files in a folder of ours: the data, the superuser's password, the settings.

The folder itself, the password and the settings belong to us; only `data` is the account's.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from feedsvc.commands.demo.embedded.account import Account
from feedsvc.commands.demo.embedded.binaries import PostgresBinaries
from feedsvc.commands.demo.embedded.errors import EmbeddedError, ServerDiedError
from feedsvc.commands.demo.embedded.initdb import initdb


@dataclass(frozen=True, slots=True)
class ClusterFolder:
    """The database cluster in `folder`, of `binaries`, whose server runs as `account`."""

    folder: Path
    binaries: PostgresBinaries
    account: Account

    @property
    def data(self) -> Path:
        """PostgreSQL's data folder."""
        return self.folder / "data"

    @property
    def settings_file(self) -> Path:
        """The settings at the server's start; ALTER SYSTEM still overrides them."""
        return self.folder / "postgres.conf"

    @property
    def password_file(self) -> Path:
        """The superuser's password, for us alone."""
        return self.folder / "superuser-password"

    def password(self) -> str:
        """The superuser's password: random, made when there is none yet."""
        if not self.password_file.exists():
            write_private(self.password_file, secrets.token_urlsafe(24))
        return self.password_file.read_text()

    def write_settings(self, settings: Mapping[str, str]) -> None:
        """Write the server's settings, over those that initdb chose."""
        lines = [f"{name} = {_quoted(value)}\n" for name, value in settings.items()]
        self.settings_file.write_text("include 'data/postgresql.conf'\n" + "".join(lines))
        self.settings_file.chmod(0o644)  # the account reads it

    def check(self) -> None:
        """Check whether a server can run on the data.

        Raises:
            ServerDiedError: another major version made it, or it is incomplete.
            EmbeddedError: it isn't ours, neither to start nor to make anew.
        """
        if not self.password_file.exists():
            raise EmbeddedError(
                f"feedsvc didn't make {self.data}, for {self.password_file} is missing: choose"
                " another folder"
            )
        owner = self.data.stat().st_uid
        if owner != self.account.uid:
            raise EmbeddedError(
                f"{self.data} belongs to the account with id {owner} and the server would run as"
                f" {self.account.name}: choose another folder, or remove this one"
            )
        made_by = _first_line(self.data / "PG_VERSION")
        if made_by != str(self.binaries.major):
            raise ServerDiedError(f"its version is {made_by!r}, not {self.binaries.major}")

    def create(self) -> None:
        """Make the data, whole or not at all.

        Raises:
            EmbeddedError: initdb's own reason.
        """
        for stale in self.folder.glob("data.new-*"):  # its initdb may even still be at it
            shutil.rmtree(stale, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(dir=self.folder, prefix="data.new-"))
        password_copy = self.folder / "initdb-password"
        try:
            self.account.give(scratch)
            write_private(password_copy, self.password())
            self.account.give(password_copy)
            initdb(self.binaries, self.account, scratch, password_copy)
            scratch.rename(self.data)
        finally:
            password_copy.unlink(missing_ok=True)
            shutil.rmtree(scratch, ignore_errors=True)

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Move the data away, and remove it for good only if the block succeeds.

        If a new cluster doesn't start either, then the data wasn't at fault and comes back.
        """
        aside = self.folder / "data.broken"
        shutil.rmtree(aside, ignore_errors=True)
        self.data.rename(aside)
        try:
            yield
        except BaseException:
            shutil.rmtree(self.data, ignore_errors=True)
            aside.rename(self.data)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def write_private(path: Path, text: str) -> None:
    """Write a file that no other account can read, not even for a moment."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _first_line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").partition("\n")[0]
    except OSError:
        return ""


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
