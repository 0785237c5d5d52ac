"""A real PgBouncer in front of the tests' PostgreSQL."""

import asyncio
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from urllib.parse import urlsplit

import asyncpg
import pytest

from feedsvc.backends.postgres.sessions import SETTINGS
from feedsvc.commands.demo.embedded.account import server_account
from tests.support.ports import reserved_port
from tests.support.servers import LOGIN, PASSWORD, throw_away_folder

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
LATER = shutil.which("pgbouncer-later")
"""A later release, beside Debian's own of this machine."""
needed = pytest.mark.skipif(
    PROGRAM is None, reason="no pgbouncer here (Debian's package of that name has it)"
)

SERVERS = 3
"""Server connections of a pooler of transactions."""
PATIENT = {
    "FEEDSVC_POOLS__READ__ACQUIRE_TIMEOUT": "60",
    "FEEDSVC_POOLS__BULK__ACQUIRE_TIMEOUT": "60",
    "FEEDSVC_POOLS__ANALYTICS__ACQUIRE_TIMEOUT": "60",
    "FEEDSVC_DATABASE__CONNECT_TIMEOUT": "60",
}
"""Settings of a service that waits in the queue of so small a pooler, on a loaded machine too."""
HOSTILE = (
    "SET timezone = 'Asia/Tokyo'",
    "SET datestyle = 'German'",
    "SET intervalstyle = 'sql_standard'",
    "SET bytea_output = 'escape'",
    "SET extra_float_digits = -15",
    "SET client_encoding = 'LATIN1'",
    "SET search_path = pg_catalog",
    "SET default_transaction_read_only = off",
    "SET default_transaction_isolation = serializable",
    "SET feedsvc.tenant = 'atelier-blanc'",
    "SET feedsvc.role = 'admin'",
    "SET another.application = 'is here'",
    "SET row_security = off",
    "SET synchronous_commit = local",
    "SET lc_monetary = 'C'",
    "SET transform_null_equals = on",
    "SET enable_indexscan = off",
    "PREPARE __asyncpg_stmt_1__ AS SELECT 'of a neighbour'",
    "SET statement_timeout = '1ms'",
)
"""SQL of another client of the same pooler and login, of which each statement outlasts its
transaction on a server connection."""


def _release(program: str) -> tuple[int, int]:
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    major, minor = shown.stdout.split()[1].split(".")[:2]
    return int(major), int(minor)


def that_prepares() -> str | None:
    """A pgbouncer that knows `max_prepared_statements` (1.21)."""
    found = (program for program in (PROGRAM, LATER) if program is not None)
    return next((program for program in found if _release(program) >= (1, 21)), None)


@contextmanager
def pooled(
    database_url: str,
    *,
    mode: str = "session",
    ignore: str = "",
    more: str = "",
    program: str | None = PROGRAM,
) -> Iterator[str]:
    """The URL of the login through a pooler of this mode; `more`: lines of its settings."""
    assert program is not None
    parts = urlsplit(database_url)
    account = server_account()
    with throw_away_folder() as folder, reserved_port() as port:
        account.make_folder(folder)
        (folder / "users").write_text(f'"{LOGIN}" "{PASSWORD}"\n')
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={parts.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {folder / 'users'}\npool_mode = {mode}\n"
            + more
            + (f"ignore_startup_parameters = {ignore}\n" if ignore else "")
        )
        for file in ("users", "pgbouncer.ini"):
            account.give(folder / file)
        process = subprocess.Popen(
            [program, "-q", folder / "pgbouncer.ini"],
            cwd=folder,
            stderr=subprocess.DEVNULL,
            **account.identity(),
        )
        try:
            _wait(process, port)
            login = parts.netloc.rpartition("@")[0]
            yield parts._replace(netloc=f"{login}@127.0.0.1:{port}").geturl()
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def pooled_by_transaction(
    database_url: str, *, program: str | None = PROGRAM, more: str = ""
) -> Iterator[str]:
    """The same in transaction mode, by a pooler that has `SERVERS` connections and swallows
    settings of a session."""
    more += f"default_pool_size = {SERVERS}\n"
    ignored = ",".join(SETTINGS)
    with pooled(
        database_url, mode="transaction", ignore=ignored, more=more, program=program
    ) as url:
        yield url


@asynccontextmanager
async def each_server(url: str) -> AsyncIterator[list[asyncpg.Connection]]:
    """A client in a transaction on each server connection of such a pooler."""
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(SERVERS):
            client = await _in_transaction(url)
            stack.push_async_callback(client.close)
            clients.append(client)
        yield clients
        for client in clients:
            await client.execute("COMMIT")


async def _in_transaction(url: str) -> asyncpg.Connection:
    """A client that has begun, after as many trials as a `statement_timeout` of another cuts.

    One may be the pooler's own, which brings the server connection's encoding, time zone and name
    in line with this client's: so they are those of the service's.
    """
    async with asyncio.timeout(60):
        while True:
            client = await asyncpg.connect(
                url, statement_cache_size=0, server_settings={"application_name": "feedsvc"}
            )
            try:
                await client.execute("BEGIN; SET LOCAL statement_timeout = 0")
            except (asyncpg.QueryCanceledError, asyncpg.ConnectionDoesNotExistError):
                client.terminate()
            else:
                return client


async def leave_settings(url: str) -> None:
    """Leave a neighbour's on every server connection."""
    async with asyncio.timeout(60):
        while True:
            with suppress(asyncpg.QueryCanceledError):  # a COMMIT that took a millisecond
                async with each_server(url) as clients:
                    for client in clients:
                        await client.execute("DEALLOCATE ALL;" + ";".join(HOSTILE))
                break
    async with each_server(url):
        pass


def _wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, "pgbouncer ended"
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("pgbouncer does not listen")
