"""The operating-system account that the servers run as: PostgreSQL refuses to be root."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from feedsvc.commands.demo.embedded.errors import EmbeddedError, explained

STAND_INS = ("postgres", "nobody")


class UnixAccount(TypedDict, total=False):
    """Popen's arguments that make a child another account; empty when it stays ours."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Account:
    """The account that servers run as; `borrowed` when we are root and it is another."""

    name: str
    uid: int
    gid: int
    borrowed: bool

    def identity(self) -> UnixAccount:
        """Popen's arguments for a child of this account."""
        if not self.borrowed:
            return {}  # even naming our own groups would need root's rights
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def give(self, path: Path) -> None:
        """Make the account the owner of a file or folder that lies in a folder of ours."""
        if self.borrowed:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def make_folder(self, folder: Path) -> None:
        """Make a folder, and its missing parents, ours alone but passable for the account.

        It stays ours because a server that owned it could turn our next write into a link.

        Raises:
            EmbeddedError: it can't be made, or the account can't get through to it.
        """
        with explained(f"make {folder}"):
            self._make(folder)
        if self.borrowed and not self._can_enter(folder):
            raise EmbeddedError(
                f"the account {self.name}, which the servers run as instead of root, can't enter"
                f" {folder}: choose a folder outside private ones, such as /var/cache/feedsvc"
            )

    def _make(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make(folder.parent)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o711 if self.borrowed else 0o700)

    def _can_enter(self, folder: Path) -> bool:
        # Asking the kernel beats adding up mode bits: ACLs and mounts have a say too.
        entered = subprocess.run(  # noqa: S603 - the folder is an argument, not a script
            ["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=10,
            **self.identity(),
        )
        return entered.returncode == 0


def server_account() -> Account:
    """The process's own account; as root, `postgres` if there is one, else `nobody`.

    Raises:
        EmbeddedError: the process is root's and there is neither.
    """
    uid = os.geteuid()
    if uid != 0:
        return Account(_name(uid), uid, os.getegid(), borrowed=False)
    for name in STAND_INS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid, borrowed=True)
    raise EmbeddedError(
        "PostgreSQL doesn't run as root and there is no account postgres or nobody to run it as:"
        " start this as an ordinary user"
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
