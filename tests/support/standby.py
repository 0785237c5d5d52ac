"""A primary of a test's own, and a standby that really streams from it."""

import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import asyncpg
import psutil

from feedsvc.backends.postgres.migrations import runner
from feedsvc.changes import triggers
from feedsvc.commands.demo.embedded import PostgresServer, start_postgres
from feedsvc.commands.demo.embedded.processes import run_tool
from tests.support.servers import throw_away_folder

STREAMING = {"wal_level": "replica", "max_wal_senders": "8", "wal_receiver_status_interval": "1s"}


@contextmanager
def primary_running(**settings: str) -> Iterator[PostgresServer]:
    """A server that standbys can follow: of its own initdb, for they know it by its identifier."""
    given = {**STREAMING, "shared_buffers": "32MB", "fsync": "off", **settings}
    with throw_away_folder() as folder, start_postgres(folder, settings=given) as server:
        yield server


async def lay_out(primary: PostgresServer, schema: str, datasets: Path, login: str) -> None:
    """The operator's tables and the service's own, with triggers, for this login to serve."""
    admin = await asyncpg.connect(primary.url())
    try:
        await admin.execute(schema)
        await runner.up(primary.url(), "service")
        await triggers.install_for(admin, datasets)
        await admin.execute(f"GRANT feedsvc_service TO {login}")
    finally:
        await admin.close()


@contextmanager
def standby_of(primary: PostgresServer, **settings: str) -> Iterator[PostgresServer]:
    """A hot standby, made with pg_basebackup, that follows the primary."""
    cluster = primary.cluster
    with throw_away_folder() as folder:
        cluster.account.make_folder(folder)
        room = folder / "room"  # the account's, so that pg_basebackup can make its folder there
        room.mkdir()
        cluster.account.give(room)
        tool = cluster.binaries.folder / "pg_basebackup"
        argv: list[str | Path] = [tool, f"--pgdata={room / 'data'}", "--write-recovery-conf"]
        argv += ["--checkpoint=fast", f"--dbname={primary.url()}", "--no-sync"]
        done = run_tool(argv, cluster.account, room, seconds=60)
        assert done.returncode == 0, done.stdout
        (room / "data").rename(folder / "data")
        shutil.copyfile(cluster.password_file, folder / "superuser-password")
        given = {**STREAMING, "shared_buffers": "32MB", "hot_standby": "on", **settings}
        with start_postgres(folder, settings=given) as server:
            yield server


class Replicated(NamedTuple):
    """A primary that is laid out, and a standby that streams from it."""

    primary: PostgresServer
    standby: PostgresServer


@asynccontextmanager
async def replicated(
    schema: str, datasets: Path, login: str, **settings: str
) -> AsyncIterator[Replicated]:
    """Both servers with these settings, and on them the operator's tables and the service's."""
    with primary_running(**settings) as primary:
        await lay_out(primary, schema, datasets, login)
        with standby_of(primary, **settings) as standby:
            yield Replicated(primary, standby)


@contextmanager
def frozen(server: PostgresServer) -> Iterator[None]:
    """The server with all of its backends, stopped as if its machine hung."""
    postmaster = psutil.Process(server.pid)
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            if process.is_running():
                os.kill(process.pid, signal.SIGCONT)


def port_of(url: str) -> int:
    """The address of a server."""
    port = urlsplit(url).port
    assert port is not None
    return port
