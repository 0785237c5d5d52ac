"""Valkey's process: its settings, how it comes up, and what a killed demo left of it."""

import logging
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from feedsvc.commands.demo.embedded.account import Account
from feedsvc.commands.demo.embedded.cluster import write_private
from feedsvc.commands.demo.embedded.errors import EmbeddedError, PortTakenError, ServerDiedError
from feedsvc.commands.demo.embedded.orphans import end_orphan, read_pid
from feedsvc.commands.demo.embedded.processes import ServerProcess, Step
from feedsvc.commands.demo.embedded.serverlog import why_it_died

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
START_SECONDS = 15.0
POLL = 0.02
KILL: tuple[Step, ...] = ((signal.SIGKILL, 5.0),)
TERMINATE: tuple[Step, ...] = ((signal.SIGTERM, 5.0), *KILL)

# A cache: nothing is written to the disk, and the oldest entries go when it is full.
SETTINGS: Mapping[str, str] = {
    "bind": HOST,
    "daemonize": "no",
    "save": '""',
    "appendonly": "no",
    "dir": "valkey",  # the one folder that the account may write to
    "pidfile": "valkey.pid",
    "set-proc-title": "no",  # keeps the command line by which an orphan is recognised
    "maxmemory": "256mb",
    "maxmemory-policy": "allkeys-lru",
}


def write_settings(
    folder: Path, account: Account, port: int, password: str, settings: Mapping[str, str]
) -> None:
    """Write the settings, the password among them: an argument would be in the process list."""
    lines = {**SETTINGS, **settings, "port": str(port), "requirepass": password}
    private = _settings_file(folder)
    write_private(private, "".join(f"{name} {value}\n" for name, value in lines.items()))
    account.give(private)
    (folder / "valkey").mkdir(mode=0o700, exist_ok=True)
    account.give(folder / "valkey")


def valkey_process(binary: Path, folder: Path, account: Account) -> ServerProcess:
    """The server, not yet started."""
    argv = (str(binary), str(_settings_file(folder)))
    return ServerProcess(argv, account, folder, folder / "valkey.log")


def bring_up(process: ServerProcess, port: int, password: str, seconds: float) -> None:
    """Start it and wait until it answers to the password.

    Raises:
        PortTakenError: another process has the port.
        ServerDiedError: it ended; its own reason.
        EmbeddedError: it needed longer than `seconds`.
    """
    deadline = time.monotonic() + seconds
    process.spawn()
    try:
        _wait_until_ready(process, port, password, deadline)
    except BaseException:
        process.end(KILL)
        raise


def _wait_until_ready(process: ServerProcess, port: int, password: str, deadline: float) -> None:
    while not _answers(port, password):
        if not process.alive():
            raise _death(process)
        if time.monotonic() > deadline:
            reason = why_it_died(process.log)
            raise EmbeddedError(f"Valkey in {process.folder} wasn't ready in time: {reason}")
        time.sleep(POLL)


def _answers(port: int, password: str) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answer = b""
            while chunk := connection.recv(64):
                answer += chunk
                if answer.count(b"\n") == 2:
                    break
            return answer == b"+OK\r\n+PONG\r\n"
    except OSError:
        return False


def _death(process: ServerProcess) -> EmbeddedError:
    reason = why_it_died(process.log)
    if "Address already in use" in reason or "Failed listening on port" in reason:
        return PortTakenError(f"Valkey's port is taken: {reason}")
    return ServerDiedError(f"Valkey ended at its start: {reason}")


def end_left_valkey(folder: Path) -> None:
    """End the server that a killed process left in a folder which now is ours.

    Raises:
        EmbeddedError: it doesn't end, or isn't ours to end.
    """
    pid = read_pid(folder / "valkey" / "valkey.pid")
    if pid is not None and end_orphan(pid, f"-server {_settings_file(folder)}", TERMINATE):
        logger.warning("ended Valkey (process %d), left over in %s", pid, folder)


def _settings_file(folder: Path) -> Path:
    return folder / "valkey.conf"
