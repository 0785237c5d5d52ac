"""PostgreSQL's process: how it comes up, how it goes down, and what a killed demo left of it."""

import logging
import signal
import subprocess
import time
from pathlib import Path
from typing import Literal

from feedsvc.commands.demo.embedded.cluster import ClusterFolder
from feedsvc.commands.demo.embedded.errors import EmbeddedError, PortTakenError, ServerDiedError
from feedsvc.commands.demo.embedded.initdb import SUPERUSER
from feedsvc.commands.demo.embedded.orphans import end_orphan, exists, read_pid
from feedsvc.commands.demo.embedded.processes import ServerProcess, Step, run_tool
from feedsvc.commands.demo.embedded.serverlog import why, why_it_died

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
START_SECONDS = 30.0
POLL = 0.05
LOGINS = 5

StopMode = Literal["fast", "immediate", "kill"]

KILL: tuple[Step, ...] = ((signal.SIGKILL, 5.0),)
IMMEDIATE: tuple[Step, ...] = ((signal.SIGQUIT, 10.0), *KILL)  # it kills its children after 5 s
FAST: tuple[Step, ...] = ((signal.SIGINT, 10.0), *IMMEDIATE)
STEPS: dict[StopMode, tuple[Step, ...]] = {"fast": FAST, "immediate": IMMEDIATE, "kill": KILL}

# Said while what is left of a killed server goes away; a moment later it is over.
NOT_YET = ('lock file "postmaster.pid"', "pre-existing shared memory block")


def postmaster(cluster: ClusterFolder, port: int) -> ServerProcess:
    """The cluster's server on a port, not yet started."""
    argv = [str(cluster.binaries.folder / "postgres"), "-D", str(cluster.data)]
    argv += ["-c", f"config_file={cluster.settings_file}", "-p", str(port)]
    return ServerProcess(
        tuple(argv), cluster.account, cluster.folder, cluster.folder / "postgres.log"
    )


def bring_up(process: ServerProcess, cluster: ClusterFolder, port: int, seconds: float) -> None:
    """Start it and wait until it lets the superuser in.

    Raises:
        PortTakenError: another process has the port.
        ServerDiedError: it ended, or can't let the superuser in; its own reason.
        EmbeddedError: it needed longer than `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        process.spawn()
        try:
            _wait_until_ready(process, cluster, port, deadline)
        except ServerDiedError as error:
            process.end(IMMEDIATE)
            if time.monotonic() > deadline or not any(words in str(error) for words in NOT_YET):
                raise
            end_left_postmaster(cluster.folder)
            time.sleep(4 * POLL)
        except BaseException:
            process.end(IMMEDIATE)
            raise
        else:
            return


def _wait_until_ready(
    process: ServerProcess, cluster: ClusterFolder, port: int, deadline: float
) -> None:
    while time.monotonic() < deadline:
        pid = process.running_pid()
        if pid is None:
            raise _death(process)
        if _says_ready(cluster.data, pid):
            _log_in(cluster, port)
            return
        time.sleep(POLL)
    raise EmbeddedError(
        f"PostgreSQL in {cluster.folder} wasn't ready in time: {why_it_died(process.log)}"
    )


def _death(process: ServerProcess) -> EmbeddedError:
    reason = why_it_died(process.log)
    if "could not create any TCP/IP sockets" in reason:
        return PortTakenError(f"PostgreSQL's port is taken: {reason}")
    return ServerDiedError(f"PostgreSQL ended at its start: {reason}")


def _says_ready(data: Path, pid: int) -> bool:
    # The eighth line is the server's state: what `pg_ctl start --wait` looks at as well.
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _log_in(cluster: ClusterFolder, port: int) -> None:
    argv = [str(cluster.binaries.folder / "psql"), "--no-psqlrc", "--command=SELECT 1"]
    argv += [f"--host={HOST}", f"--port={port}", f"--username={SUPERUSER}", "--dbname=postgres"]
    variables = {"PGPASSWORD": cluster.password(), "PGCONNECT_TIMEOUT": "5"}
    said = ""
    for _ in range(LOGINS):
        try:
            tried = run_tool(argv, cluster.account, cluster.folder, seconds=10, variables=variables)
        except (OSError, subprocess.TimeoutExpired) as error:
            said = str(error)
        else:
            if tried.returncode == 0:
                return
            said = why(tried.stdout)
        time.sleep(POLL)
    raise ServerDiedError(f"PostgreSQL doesn't let its superuser in: {said}")


def end_left_postmaster(folder: Path) -> None:
    """End the server that a killed process left in a folder which now is ours.

    Raises:
        EmbeddedError: it doesn't end, or isn't ours to end.
    """
    pid_file = folder / "data" / "postmaster.pid"
    pid = read_pid(pid_file)
    if pid is None:
        return
    if end_orphan(pid, f"/postgres -D {folder / 'data'}", FAST):
        logger.warning("ended PostgreSQL (process %d), left over in %s", pid, folder)
    elif exists(pid):
        # The id is another process's by now, and PostgreSQL would take that for itself.
        pid_file.unlink(missing_ok=True)
