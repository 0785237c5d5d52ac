"""A process of `feedsvc` that the run's fork server starts, to be handled like a `Popen`."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from tests.support.fork_server import MORE_CODE, OTHER_CODE
from tests.support.readable import is_readable

ADDRESS = "FEEDSVC_TEST_FORK_SERVER"
REPOSITORY = Path(__file__).parents[2]
_PLAIN = (
    *("FEEDSVC_", "DATABASE_URL", "MIGRATION_DATABASE_URL", "REDIS_URL", "PYTHONUNBUFFERED"),
    *("OTEL_BSP_", "OTEL_SERVICE_NAME"),  # of OpenTelemetry's, those that no import reads
)


class Process(Protocol):
    """The part of `Popen` that tests use."""

    returncode: int | None

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int, /) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


@contextmanager
def fork_server() -> Iterator[None]:
    """A fork server for this run, in its environment for pytest-xdist's workers."""
    with tempfile.TemporaryDirectory(prefix="feedsvc-forks-") as folder:
        address = f"{folder}/socket"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(address)
            listener.listen(64)
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.fork_server", str(listener.fileno())],
                cwd=REPOSITORY,
                pass_fds=[listener.fileno()],
            )
        os.environ[ADDRESS] = address
        try:
            yield
        finally:
            del os.environ[ADDRESS]
            process.kill()
            process.wait()


def may_be_forked(environment: Mapping[str, str]) -> bool:
    """Return whether only settings differ from what the fork server was started with."""
    ours = {name for name in {*environment, *os.environ} if not name.startswith(_PLAIN)}
    return ADDRESS in os.environ and all(
        environment.get(name) == os.environ.get(name) for name in ours - {"PYTEST_CURRENT_TEST"}
    )


class Forked:
    """`python -m feedsvc` with these arguments."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        stdout: int,
        stderr: int,
        folder: Path = REPOSITORY,
    ) -> None:
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.connect(os.environ[ADDRESS])
        request = json.dumps([[*arguments], dict(environment), str(folder)]).encode()
        self._line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * len(request))
        with Path(os.devnull).open() as nothing:
            socket.send_fds(self._line, [request], [nothing.fileno(), stdout, stderr])
        self.pid = int(self._line.recv(32))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status. Raise TimeoutExpired."""
        if (status := self._ended(timeout)) is None:
            raise subprocess.TimeoutExpired("feedsvc", timeout or 0)
        return status

    def send_signal(self, sig: int, /) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            if not is_readable(self._line, timeout):
                return None
            # Peeked at, for several threads may wait for it.
            self.returncode = int(self._line.recv(32, socket.MSG_PEEK) or -signal.SIGKILL)
        return self.returncode

    def __del__(self) -> None:
        self._line.close()


def _of_a_real_start(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment by which an interpreter finds other code as a forked one does."""
    variables = dict(environment)
    variables.pop(MORE_CODE, None)
    if (path := variables.pop(OTHER_CODE, None)) is not None:
        variables |= {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    return variables


def start(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    wrapper: Sequence[str] = (),
    *,
    is_forked: bool = True,
) -> tuple[Process, IO[str]]:
    """Start `feedsvc`, by fork if it may be, and give both of its outputs as one."""
    read, write = os.pipe()
    process: Process
    try:
        if is_forked and not wrapper and may_be_forked(environment):
            process = Forked(arguments, environment, write, write)
        else:
            process = subprocess.Popen(
                [*wrapper, sys.executable, "-m", "feedsvc", *arguments],
                cwd=REPOSITORY,
                env=_of_a_real_start(environment),
                stdout=write,
                stderr=write,
            )
    finally:
        os.close(write)
    return process, os.fdopen(read, encoding="utf-8", buffering=1)


def feedsvc(
    *arguments: str, env: Mapping[str, str], folder: Path = REPOSITORY
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, as `subprocess.run` with both outputs captured."""
    if not may_be_forked(env):
        command = [sys.executable, "-m", "feedsvc", *arguments]
        return subprocess.run(
            command,
            cwd=folder,
            env=_of_a_real_start({**env, "PYTHONPATH": str(REPOSITORY)}),
            capture_output=True,
            text=True,
            check=False,
        )
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        status = Forked(arguments, env, out.fileno(), err.fileno(), folder).wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
    return subprocess.CompletedProcess(arguments, status, *texts)
