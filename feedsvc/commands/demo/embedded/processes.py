"""Server processes: started in a session of their own, ended by their own id.

A session of its own keeps a terminal's Ctrl-C away from a server: only our process gets it,
and ends the server in order.
"""

import logging
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from feedsvc.commands.demo.embedded.account import Account
from feedsvc.commands.demo.embedded.errors import EmbeddedError

logger = logging.getLogger(__name__)

Step = tuple[signal.Signals, float]
"""A signal, and the seconds that the process then has before the next step."""

KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")


def environment(home: Path) -> dict[str, str]:
    """The environment of a server or its tool: no PG* of the caller's, English messages, UTC."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return {**kept, "HOME": str(home), "LC_ALL": "C", "TZ": "UTC"}


def run_tool(
    argv: Sequence[str | Path],
    account: Account,
    folder: Path,
    *,
    seconds: float,
    variables: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a tool as the account within `folder`; standard error is folded into its output.

    Raises:
        OSError: it can't be executed.
        subprocess.TimeoutExpired: it took longer than `seconds`.
    """
    return subprocess.run(  # noqa: S603 - argv names binaries that we found ourselves
        argv,
        cwd=folder,
        env=environment(folder) | (variables or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
        start_new_session=True,
        **account.identity(),
    )


@dataclass(slots=True)
class ServerProcess:
    """One server's process, which can be started again after it has ended."""

    argv: tuple[str, ...]
    account: Account
    folder: Path
    log: Path
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        """Its process id.

        Raises:
            EmbeddedError: it isn't running.
        """
        pid = self.running_pid()
        if pid is None:
            raise EmbeddedError(f"{Path(self.argv[0]).name} isn't running: start it first")
        return pid

    def running_pid(self) -> int | None:
        """Its process id, None where it isn't running: one look, between which it can't end."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def alive(self) -> bool:
        """Return whether it is running."""
        return self.running_pid() is not None

    def spawn(self) -> None:
        """Start it; its output begins a new log, and the run before keeps the previous one."""
        if self.alive():
            raise EmbeddedError(f"{Path(self.argv[0]).name} is already running: stop it first")
        if self.log.exists():
            self.log.replace(self.log.with_name(self.log.name + ".1"))
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as log:
            self._child = subprocess.Popen(  # noqa: S603 - binaries that we found ourselves
                self.argv,
                cwd=self.folder,
                env=environment(self.folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=0o077,
                **self.account.identity(),
            )

    def end(self, steps: Sequence[Step]) -> None:
        """Signal after signal until it has ended; nothing when it already has."""
        for number, seconds in steps:
            if self._child is None or self._child.poll() is not None:
                break
            self._child.send_signal(number)
            try:
                self._child.wait(seconds)
            except subprocess.TimeoutExpired:
                logger.warning("%s ignores %s", self.argv[0], number.name)
        self._child = None
