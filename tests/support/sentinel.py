"""A master, its replica and a sentinel that watches them: real Redis 8 processes."""

import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from feedsvc.commands.demo.embedded import start_valkey
from feedsvc.commands.demo.embedded.valkey import ValkeyServer
from tests.support.ports import reserved_port
from tests.support.redis_server import REDIS
from tests.support.servers import throw_away_folder

SERVICE = "feeds"
_SECONDS = 60.0


@dataclass(frozen=True)
class Watched:
    """Two servers, one of which is the other's replica, and where their sentinel listens."""

    servers: tuple[ValkeyServer, ValkeyServer]
    sentinel_port: int
    sentinel_password: str

    @property
    def url(self) -> str:
        password = self.servers[0].password
        return (
            f"redis+sentinel://:{password}@127.0.0.1:{self.sentinel_port}/{SERVICE}"
            f"?sentinel_password={self.sentinel_password}"
        )

    def master(self) -> ValkeyServer:
        """The master that the sentinel names."""
        with redis.Redis(port=self.sentinel_port, password=self.sentinel_password) as client:
            _, port = client.sentinel_get_master_addr_by_name(SERVICE)
        return next(server for server in self.servers if server.port == int(port))


@contextmanager
def watched() -> Iterator[Watched]:
    """The three of them, once the sentinel knows of the replica; gone at the block's end."""
    password, own = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    with throw_away_folder() as folder, ExitStack() as stack:
        folder.mkdir()
        folder.chmod(0o755)
        given = {"requirepass": password, "masterauth": password, "repl-diskless-sync-delay": "0"}
        master = stack.enter_context(start_valkey(folder / "master", binary=REDIS, settings=given))
        given |= {"replicaof": f"{master.host} {master.port}"}
        replica = stack.enter_context(
            start_valkey(folder / "replica", binary=REDIS, settings=given)
        )
        port = stack.enter_context(sentinel(master.port, password, own))
        made = Watched((master, replica), port, own)
        _until(lambda: _replicas_are_well(made))
        yield made


@contextmanager
def sentinel(master_port: int, master_password: str, password: str) -> Iterator[int]:
    """A sentinel of its own password that names this port of 127.0.0.1; its port.

    It runs as whoever runs the tests, for it writes to its own settings.
    """
    with throw_away_folder() as folder, reserved_port() as port:
        folder.mkdir()
        yield from _sentinel(folder, port, master_port, master_password, password)


def _sentinel(
    folder: Path, port: int, master_port: int, master_password: str, password: str
) -> Iterator[int]:
    file = folder / "sentinel.conf"
    file.write_text(
        f"port {port}\nbind 127.0.0.1\nrequirepass {password}\ndir {folder}\n"
        f"sentinel monitor {SERVICE} 127.0.0.1 {master_port} 1\n"
        f"sentinel auth-pass {SERVICE} {master_password}\n"
        f"sentinel down-after-milliseconds {SERVICE} 500\n"
        f"sentinel failover-timeout {SERVICE} 3000\n"
    )
    with (folder / "sentinel.log").open("wb") as log:
        process = subprocess.Popen(
            [REDIS, file, "--sentinel"], stdout=log, stderr=log, start_new_session=True
        )
    try:
        _until(lambda: _answers(port, password))
        yield port
    finally:
        process.kill()
        process.wait()


def _answers(port: int, password: str) -> bool:
    with redis.Redis(port=port, password=password) as client:
        return bool(client.ping())


def _replicas_are_well(made: Watched) -> bool:
    with redis.Redis(port=made.sentinel_port, password=made.sentinel_password) as client:
        replicas = client.sentinel_slaves(SERVICE)
    return [one["master-link-status"] for one in replicas] == ["ok"]


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            if is_so():
                return
        except redis.ConnectionError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError("the sentinel does not come about")
        time.sleep(0.05)
