"""Folders for demos, one process each: a lock that the kernel drops when its holder dies.

With a folder's lock its demo is known to be gone, and the servers that a killed one left running
are ended.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from feedsvc.commands.demo.embedded.account import server_account
from feedsvc.commands.demo.embedded.errors import EmbeddedError, explained
from feedsvc.commands.demo.embedded.postmaster import end_left_postmaster
from feedsvc.commands.demo.embedded.valkeyprocess import end_left_valkey

logger = logging.getLogger(__name__)

SLOTS = 100
LOCK_NAME = "feedsvc.lock"


@contextmanager
def claim_slot(root: Path) -> Iterator[Path]:
    """The first of `demo-0`, `demo-1`, … in `root` that no other process has, ours for the block.

    Before that, servers are ended that killed demos left in any of them.

    Raises:
        EmbeddedError: the folder can't be made or locked, or all slots are taken.
    """
    account = server_account()
    account.make_folder(root)
    root = root.resolve()
    _end_left_servers(root)
    for number in range(SLOTS):
        folder = root / f"demo-{number}"
        account.make_folder(folder)
        with _lock(folder) as ours:
            if ours:
                yield _freed(folder)
                return
    raise EmbeddedError(f"all {SLOTS} demos in {root} are running: stop one")


@contextmanager
def claim_folder(path: Path) -> Iterator[Path]:
    """Exactly this folder, made if it is missing, ours for the block.

    Raises:
        EmbeddedError: another process has it, or it holds files that aren't feedsvc's.
    """
    with explained(f"use {path}"):
        foreign = path.is_dir() and not (path / LOCK_NAME).exists() and any(path.iterdir())
    if foreign:
        raise EmbeddedError(f"{path} holds other files: choose an empty or a new folder")
    server_account().make_folder(path)
    folder = path.resolve()
    with _lock(folder) as ours:
        if not ours:
            raise EmbeddedError(f"another process is using {path}: stop it, or choose another")
        yield _freed(folder)


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    # The lock file stays for good: removing it would let two processes lock two files.
    # Python opens close-on-exec: a server must not inherit the lock and outlive us with it.
    with explained(f"lock {folder}"):
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield _taken(descriptor)
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise EmbeddedError(f"can't lock here: {error}: choose a folder on a local disk") from error
    return True


def _end_left_servers(root: Path) -> None:
    for folder in sorted(root.glob("demo-*")):
        try:
            with _lock(folder) as ours:
                if ours:
                    _freed(folder)
        except EmbeddedError as error:
            logger.warning("%s", error)  # that slot is out of order; ours need not be


def _freed(folder: Path) -> Path:
    with explained(f"end what was left running in {folder}"):
        end_left_postmaster(folder)
        end_left_valkey(folder)
    return folder
