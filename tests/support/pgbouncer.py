"""A real PgBouncer in front of the tests' PostgreSQL."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from feedsvc.commands.demo.embedded.account import server_account
from tests.support.servers import LOGIN, PASSWORD, throw_away_folder

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
needed = pytest.mark.skipif(
    PROGRAM is None, reason="no pgbouncer here (Debian's package of that name has it)"
)


@contextmanager
def pooled(database_url: str, *, mode: str = "session", ignore: str = "") -> Iterator[str]:
    """The URL of the service's login through a pooler that hands out sessions so."""
    assert PROGRAM is not None
    parts = urlsplit(database_url)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    account = server_account()
    with throw_away_folder() as folder:
        account.make_folder(folder)
        (folder / "users").write_text(f'"{LOGIN}" "{PASSWORD}"\n')
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={parts.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {folder / 'users'}\npool_mode = {mode}\n"
            + (f"ignore_startup_parameters = {ignore}\n" if ignore else "")
        )
        for file in ("users", "pgbouncer.ini"):
            account.give(folder / file)
        process = subprocess.Popen(
            [PROGRAM, "-q", folder / "pgbouncer.ini"],
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


def _wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, "pgbouncer ended"
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("pgbouncer does not listen")
