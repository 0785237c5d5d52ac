"""Servers that a killed process of ours left running: recognised, then ended by their own id."""

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from feedsvc.commands.demo.embedded.errors import EmbeddedError
from feedsvc.commands.demo.embedded.processes import Step

POLL = 0.02


def end_orphan(pid: int, mark: str, steps: Sequence[Step]) -> bool:
    """End a process that isn't our child, if its command line has `mark`; whether it had.

    The mark is looked for before each signal: a process id may have become another's.

    Raises:
        EmbeddedError: the process belongs to another account, or outlives every step.
    """
    if not is_marked(pid, mark):
        return False
    for number, seconds in steps:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return True
        except PermissionError as error:
            raise EmbeddedError(
                f"process {pid} of another account is still running ({mark}): end it first"
            ) from error
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not is_marked(pid, mark):
                return True
            time.sleep(POLL)
    raise EmbeddedError(f"process {pid} doesn't end ({mark}): end it by hand, then try again")


def is_marked(pid: int, mark: str) -> bool:
    """Return whether the live process `pid` has `mark`, up to a word's end, in its command line."""
    return f"{mark} " in f"{command_line(pid)} "


def command_line(pid: int) -> str:
    """A live process's words, separated by blanks; empty when it has ended (or is a zombie)."""
    if Path("/proc/self/cmdline").exists():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return ""
        return os.fsdecode(words.rstrip(b"\0").replace(b"\0", b" "))
    listed = subprocess.run(  # noqa: S603 - the one variable word is a number
        ["ps", "-ww", "-p", str(pid), "-o", "command="],  # noqa: S607 - ps has no one folder
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    return listed.stdout.strip()


def read_pid(path: Path) -> int | None:
    """The process id on a pid file's first line; None when there is none."""
    try:
        pid = int(path.read_text().partition("\n")[0])
    except (OSError, ValueError):
        return None
    return pid if pid > 1 else None  # 0 and below would signal whole groups


def exists(pid: int) -> bool:
    """Return whether any process has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
