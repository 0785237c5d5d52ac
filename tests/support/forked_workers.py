"""The workers of a supervisor by fork, in processes that were themselves forked for a test.

A worker must be its supervisor's own child, so that it is the supervisor that forks it.
"""

import atexit
import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Final, NoReturn

from feedsvc.commands import main as commands
from feedsvc.server import worker
from tests.support.readable import is_readable

COMMAND: Final = (sys.executable, "-m", "feedsvc")
_HANDLED: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2)


def fork_them() -> None:
    """Start workers by fork from now on, in this process."""
    started = SimpleNamespace(Popen=_started, TimeoutExpired=subprocess.TimeoutExpired)
    vars(worker)["subprocess"] = started


def _started(
    command: Sequence[str],
    *,
    pass_fds: Collection[int],
    env: Mapping[str, str],
    start_new_session: bool,
) -> "ForkedWorker":
    assert tuple(command[:3]) == COMMAND, command
    return ForkedWorker(command[3:], pass_fds, env, new_session=start_new_session)


class ForkedWorker:
    """A child of this process, with what a supervisor uses of `Popen`."""

    def __init__(
        self,
        arguments: Sequence[str],
        descriptors: Collection[int],
        environment: Mapping[str, str],
        *,
        new_session: bool,
    ) -> None:
        self.returncode: int | None = None
        for handler in logging.getLogger().handlers:
            handler.flush()  # or the child would write the lines once more
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads: they only wait
            self.pid = os.fork()
        if self.pid == 0:
            try:
                _become(arguments, descriptors, dict(environment), new_session=new_session)
            finally:
                os._exit(70)
        self._end = os.pidfd_open(self.pid)
        self._reaping = threading.Lock()

    def wait(self, timeout: float | None = None) -> int:
        """Raise TimeoutExpired."""
        if self.returncode is None and not is_readable(self._end, timeout):
            raise subprocess.TimeoutExpired(COMMAND, timeout or 0)
        with self._reaping:  # as the supervisor's threads may wait for it side by side
            if self.returncode is None:
                self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)


def _become(
    arguments: Sequence[str],
    descriptors: Collection[int],
    environment: dict[str, str],
    *,
    new_session: bool,
) -> NoReturn:
    """Run `feedsvc` above the frames and the loop of the supervisor, none of which goes on."""
    signal.set_wakeup_fd(-1)
    for number in _HANDLED:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor in [int(link.name) for link in Path("/proc/self/fd").iterdir()]:
        if descriptor > 2 and descriptor not in descriptors:
            with suppress(OSError):  # that of the listing itself
                os.close(descriptor)
    if new_session:
        os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["feedsvc", *arguments]
    status = _status()
    atexit._run_exitfuncs()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def _status() -> int:
    try:
        commands.main()
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does at its end
        traceback.print_exc()
        return 1
    return 0
