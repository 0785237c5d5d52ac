"""An embedded PostgreSQL: started on a free port of 127.0.0.1, stopped with its context."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from feedsvc.commands.demo.embedded.account import server_account
from feedsvc.commands.demo.embedded.binaries import find_postgres
from feedsvc.commands.demo.embedded.cluster import ClusterFolder
from feedsvc.commands.demo.embedded.copies import cache_folder
from feedsvc.commands.demo.embedded.errors import ServerDiedError, explained
from feedsvc.commands.demo.embedded.initdb import SUPERUSER
from feedsvc.commands.demo.embedded.ports import on_free_port
from feedsvc.commands.demo.embedded.postmaster import (
    HOST,
    START_SECONDS,
    STEPS,
    StopMode,
    bring_up,
    end_left_postmaster,
    postmaster,
)
from feedsvc.commands.demo.embedded.processes import ServerProcess

logger = logging.getLogger(__name__)

# A throw-away demo on a laptop with two cores: nothing waits for the disk.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "jit": "off",
    "logging_collector": "off",
    "log_min_messages": "warning",
}


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running PostgreSQL and its superuser."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    cluster: ClusterFolder = field(repr=False)
    process: ServerProcess = field(repr=False)

    @property
    def pid(self) -> int:
        """The postmaster's process id.

        Raises:
            EmbeddedError: it isn't running.
        """
        return self.process.pid

    def url(
        self, database: str = "postgres", *, user: str | None = None, password: str | None = None
    ) -> str:
        """The URL of the superuser, or of `user` (without `password`, none is named)."""
        if user is None:
            user, password = self.user, self.password
        login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
        return f"postgresql://{login}@{self.host}:{self.port}/{quote(database, safe='')}"

    def start(self, seconds: float = START_SECONDS) -> None:
        """Start it again after `stop`, on the same port, with the same data and settings.

        Raises:
            EmbeddedError: it is running, or isn't ready after `seconds`, or ended: why.
        """
        bring_up(self.process, self.cluster, self.port, seconds)

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop it if it runs: each mode that takes too long gives way to the next rougher one.

        `fast` ends sessions in order (10 s), `immediate` leaves a recovery to the next start
        (10 s), `kill` is what a crash looks like.
        """
        self.process.end(STEPS[mode])


@contextmanager
def start_postgres(
    folder: Path,
    *,
    settings: Mapping[str, str] | None = None,
    cache: Path | None = None,
    seconds: float = START_SECONDS,
) -> Iterator[PostgresServer]:
    """PostgreSQL on the data in `folder`, which is made if there is none, and anew if it is bad.

    `settings` go over SETTINGS; `cache` is where binaries are copied to if need be; `seconds`
    are for one start. The folder is the caller's alone: claim it first.

    Raises:
        EmbeddedError: there are no binaries, or the server doesn't start: why, in one line.
    """
    account = server_account()
    account.make_folder(folder)
    with explained(f"start PostgreSQL in {folder}"):
        binaries = find_postgres(account, cache or cache_folder())
        cluster = ClusterFolder(folder.resolve(), binaries, account)
        end_left_postmaster(cluster.folder)
        cluster.write_settings({**SETTINGS, **(settings or {})})
        server = _start(cluster, seconds)
    try:
        yield server
    finally:
        server.stop()


def _start(cluster: ClusterFolder, seconds: float) -> PostgresServer:
    if not cluster.data.exists():
        cluster.create()
        return _start_server(cluster, seconds)
    try:
        cluster.check()
        return _start_server(cluster, seconds)
    except ServerDiedError as error:
        logger.warning("the data in %s is made anew: %s", cluster.data, error)
    with cluster.set_aside():
        cluster.create()
        return _start_server(cluster, seconds)


def _start_server(cluster: ClusterFolder, seconds: float) -> PostgresServer:
    def start(port: int) -> PostgresServer:
        process = postmaster(cluster, port)
        bring_up(process, cluster, port, seconds)
        return PostgresServer(HOST, port, SUPERUSER, cluster.password(), cluster, process)

    return on_free_port(start)
