"""Processes of `feedsvc` by fork: the imports, a second of processor time, are paid once a run.

A request is one packet: `[arguments, environment, folder]` as JSON with the new process's three
standard streams. The answers are its pid, and at its end its exit status as `Popen` has it.
Everything behind `python -m feedsvc` runs as usual, to the interpreter's own end.

    python -m tests.support.fork_server LISTENER
"""

import gc
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from typing import NamedTuple, NoReturn

from tests.support.forked_workers import fork_them

OTHER_CODE = "FEEDSVC_TESTS_PATH"
"""The variable with a folder in which our modules are looked for first."""
MORE_CODE = "FEEDSVC_TESTS_IMPORT"
"""The variable with a module that a forked process imports before it begins; no other one does."""
LONGEST = 1 << 20
"""Bytes of a request."""


class Request(NamedTuple):
    arguments: list[str]
    environment: dict[str, str]
    folder: str
    streams: list[int]


class ForkServer:
    """One thread that forks, and reaps what it forked."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._of: dict[int, socket.socket] = {}
        self._wakeups = socket.socketpair()
        for end in self._wakeups:
            end.setblocking(False)

    def forked(self) -> Request:
        """Serve for as long as the process lives; return in each of its children."""
        signal.set_wakeup_fd(self._wakeups[1].fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for the tests' processes
        for readable in (self._listener, self._wakeups[0]):
            self._selector.register(readable, selectors.EVENT_READ)
        parent = os.getppid()
        while os.getppid() == parent:  # a run that is killed can't end this process
            for key, _ in self._selector.select(5):
                if key.fileobj is self._wakeups[0]:
                    self._wakeups[0].recv(4096)
                    self._reap()
                elif (request := self._fork()) is not None:
                    return request
        sys.exit()

    def _fork(self) -> Request | None:
        client, _ = self._listener.accept()
        packet, streams, _, _ = socket.recv_fds(client, LONGEST, 3)
        arguments, environment, folder = json.loads(packet)
        request = Request(arguments, environment, folder, streams)
        if pid := os.fork():
            self._of[pid] = client
            for stream in streams:
                os.close(stream)
            client.send(str(pid).encode())
            return None
        client.close()
        self._leave()
        return request

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                with self._of.pop(pid) as client, suppress(OSError):
                    client.send(str(os.waitstatus_to_exitcode(status)).encode())

    def _leave(self) -> None:
        """Drop what a child has no use for."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._selector.close()
        for ours in (self._listener, *self._wakeups, *self._of.values()):
            ours.close()


def become(request: Request) -> NoReturn:
    """Run `python -m feedsvc` with these arguments, environment, folder and streams."""
    for number, stream in enumerate(request.streams):
        os.dup2(stream, number)
        os.close(stream)
    path, module = (request.environment.pop(name, None) for name in (OTHER_CODE, MORE_CODE))
    set_environment(request.environment)
    os.chdir(request.folder)
    sys.argv = ["feedsvc", *request.arguments]
    if path is None:
        fork_them()
    else:
        import_anew(path)
    if module is not None:
        import_module(module)
    runpy.run_module("feedsvc", run_name="__main__", alter_sys=True)
    sys.exit()


def import_anew(path: str) -> None:
    """Forget our own modules, and find them as an interpreter with this PYTHONPATH does."""
    ours = ("feedsvc", "streams", "tests", "sitecustomize")
    for name in [name for name in sys.modules if name.partition(".")[0] in ours]:
        del sys.modules[name]
    sys.path.insert(0, path)
    with suppress(ModuleNotFoundError):
        import_module("sitecustomize")
    import_module("tests.support.forked_workers").fork_them()


def set_environment(environment: dict[str, str]) -> None:
    """Replace this process's environment, and what was read from it at the start."""
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, TextIOWrapper)
        stream.reconfigure(write_through=bool(environment.get("PYTHONUNBUFFERED")))


def main() -> None:
    for name in ("feedsvc.commands.main", "feedsvc.server.app", "feedsvc.commands.check"):
        import_module(name)
    gc.collect()
    gc.freeze()  # or the first collection of each child copies every page
    become(ForkServer(socket.socket(fileno=int(sys.argv[1]))).forked())


if __name__ == "__main__":
    main()
