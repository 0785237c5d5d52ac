"""Every shape that a Redis's URL may have, with real servers behind it; sentinels' fail-over."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import redis

from feedsvc.backends.redis.link import RedisAwayError, RedisLink, RedisRefusedError
from feedsvc.settings import Redis as RedisSettings
from tests.support.redis_server import RunningRedis, redis_running
from tests.support.sentinel import SERVICE, Watched, sentinel, watched
from tests.support.tls import Certificates, certificates, tls_in_front

Shape = Callable[[Path], AbstractAsyncContextManager[str]]


@asynccontextmanager
async def by_socket(folder: Path) -> AsyncIterator[str]:
    with redis_running("redis") as server:
        [node] = server.nodes
        # Beside its settings, where its own account may write.
        path = node.process.folder / "valkey" / "socket"
        node.stop()
        with (node.process.folder / "valkey.conf").open("a") as settings:
            settings.write(f"unixsocket {path}\nunixsocketperm 777\n")
        node.start()
        path.parent.chmod(0o755)
        yield f"unix://:{node.password}@{path}?db=3"


@asynccontextmanager
async def by_tls(folder: Path) -> AsyncIterator[str]:
    given = certificates(folder)
    with redis_running("redis") as server:
        [node] = server.nodes
        async with tls_in_front(node.port, given) as port:
            yield f"rediss://:{node.password}@127.0.0.1:{port}/2?ssl_ca_certs={given.authority}"


@asynccontextmanager
async def by_sentinel(folder: Path) -> AsyncIterator[str]:
    with watched() as three:
        yield three.url


@asynccontextmanager
async def by_sentinel_and_tls(folder: Path) -> AsyncIterator[str]:
    """The sentinel names the port that speaks TLS to us, and plain to the sentinel itself."""
    given, own = certificates(folder), secrets.token_urlsafe()
    with redis_running("redis") as server, ExitStack() as stack:
        [node] = server.nodes
        async with tls_in_front(node.port, given) as master_port:
            starting = sentinel(master_port, node.password, own)
            behind = await asyncio.to_thread(stack.enter_context, starting)
            async with tls_in_front(behind, given) as port:
                yield (
                    f"rediss+sentinel://:{node.password}@127.0.0.1:{port}/{SERVICE}"
                    f"?sentinel_password={own}&ssl_ca_certs={given.authority}"
                )


@asynccontextmanager
async def by_cluster_and_tls(folder: Path) -> AsyncIterator[str]:
    """Each node tells the port at which it is reached by TLS."""
    given = certificates(folder)
    with redis_running("cluster") as cluster:
        async with _all_by_tls(cluster, given) as ports:
            password = cluster.nodes[0].password
            yield (
                f"rediss+cluster://:{password}@127.0.0.1:{ports[0]}?ssl_ca_certs={given.authority}"
            )


@asynccontextmanager
async def _all_by_tls(cluster: RunningRedis, given: Certificates) -> AsyncIterator[list[int]]:
    opened = [tls_in_front(node.port, given) for node in cluster.nodes]
    ports = [await one.__aenter__() for one in opened]
    for node, port in zip(cluster.nodes, ports, strict=True):
        RunningRedis("", [node]).configure("cluster-announce-port", str(port))
    async with asyncio.timeout(60):
        while not all(
            _reported_ports(answer) == set(ports) for answer in cluster.each("CLUSTER SLOTS")
        ):
            await asyncio.sleep(0.1)
    try:
        yield ports
    finally:
        for one in opened:
            await one.__aexit__(None, None, None)


def _reported_ports(slots: list[Any]) -> set[int]:
    return {port for _, _, [_, port, *_] in slots}


@pytest.mark.parametrize(
    "shape",
    [by_socket, by_tls, by_sentinel, by_sentinel_and_tls, by_cluster_and_tls],
    ids=lambda shape: shape.__name__,
)
async def test_every_shape_answers(shape: Shape, tmp_path: Path) -> None:
    async with shape(tmp_path) as url:
        link = RedisLink(url, RedisSettings(timeout=1.0))
        await link.open()
        assert link.state == "answers"
        names = [f"key {number}" for number in range(40)]
        await link.write_all([("SET", name, name) for name in names])
        answers = await asyncio.gather(*(link.ask("GET", name) for name in names))
        assert answers == [name.encode() for name in names]
        script = "return {KEYS[1], redis.call('GET', KEYS[2])}"
        reported = await link.write("EVAL", script, 2, "{one}:a", "{one}:b")
        assert reported == [b"{one}:a", None]
        await link.close()


async def test_users_may_stand_in_options() -> None:
    """Of the servers and of their sentinels, each with a password of its own."""
    with watched() as three, ExitStack() as stack:
        for server in three.servers:
            with redis.Redis.from_url(server.url) as client:
                client.acl_setuser("feeds", enabled=True, passwords=["+one"], keys="*",
                                   channels="*", categories=["+@all"])  # fmt: skip
        own = redis.Redis(port=three.sentinel_port, password=three.sentinel_password)
        stack.enter_context(own).acl_setuser(
            "looker", enabled=True, passwords=["+two"], channels="*", categories=["+@all"]
        )
        at = f"redis+sentinel://127.0.0.1:{three.sentinel_port}/{SERVICE}"
        good = {"username": "feeds", "password": "one", "sentinel_username": "looker",
                "sentinel_password": "two"}  # fmt: skip
        assert await is_reached(f"{at}?{urlencode(good)}")
        for wrong in ("username", "sentinel_username"):
            without = {name: value for name, value in good.items() if name != wrong}
            assert not await is_reached(f"{at}?{urlencode(without)}"), "the default user's password"
            assert not await is_reached(f"{at}?{urlencode(good | {wrong: 'nobody'})}")
        [host, port] = three.servers[0].host, three.servers[0].port
        assert await is_reached(f"redis://{host}:{port}?username=feeds&password=one")
        assert not await is_reached(f"redis://{host}:{port}?username=nobody&password=one")


async def is_reached(url: str) -> bool:
    link = RedisLink(url, RedisSettings(timeout=1.0))
    await link.open()
    try:
        return link.state == "answers"
    finally:
        await link.close()


async def test_the_ciphers_are_those_of_the_option(tmp_path: Path) -> None:
    one, other = "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"
    given = certificates(tmp_path)
    with redis_running("redis") as server:
        [node] = server.nodes
        async with tls_in_front(node.port, given, ciphers=one) as port:
            url = f"rediss://:{node.password}@127.0.0.1:{port}?ssl_ca_certs={given.authority}"
            assert await is_reached(url)
            assert await is_reached(f"{url}&ssl_ciphers={one}")
            assert not await is_reached(f"{url}&ssl_ciphers={other}")


@pytest.mark.parametrize("shape", [by_tls, by_cluster_and_tls], ids=lambda shape: shape.__name__)
async def test_a_certificate_of_another_host_is_refused(shape: Shape, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = certificates(tmp_path / "other").authority
    async with shape(tmp_path) as url:
        for strange in (url.partition("?")[0], f"{url.partition('?')[0]}?ssl_ca_certs={other}"):
            link = RedisLink(strange, RedisSettings())
            await link.open()
            assert link.away
            with pytest.raises(RedisAwayError):
                await link.ask("GET", "key")
            await link.close()


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("ssl_ca_certs=/no/such.pem", "ssl_ca_certs names a file that can't be read: /no/such.pem"),
        ("ssl_ciphers=none+such", "TLS options that can't be used"),
    ],
)
def test_certificates_that_are_of_no_use_are_refused(option: str, says: str) -> None:
    for shape in ("rediss://127.0.0.1", "rediss+sentinel://a/b", "rediss+cluster://a"):
        with pytest.raises(ValueError, match=r"TLS|ssl") as caught:
            RedisLink(f"{shape}?{option}", RedisSettings())
        assert says in str(caught.value)


@pytest.fixture
def three() -> Iterator[Watched]:
    with watched() as three:
        yield three


@pytest.fixture
async def link(three: Watched) -> AsyncIterator[RedisLink]:
    link = RedisLink(three.url, RedisSettings())
    await link.open()
    yield link
    await link.close()


async def written(link: RedisLink, name: str) -> None:
    """Return once it is kept."""
    async with asyncio.timeout(25):
        while True:
            try:
                await link.write("SET", name, name)
            except RedisAwayError:
                await asyncio.sleep(0.05)
            else:
                return


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_when_the_master_is_gone_the_next_one_is_found(
    three: Watched, link: RedisLink, how: str
) -> None:
    await written(link, "before")
    first = three.master()
    with ExitStack() as stack:
        if how == "killed":
            first.stop(kill=True)
        else:
            stack.enter_context(RunningRedis("", [first]).frozen())
        with pytest.raises(RedisAwayError):
            await link.ask("GET", "before")
        await written(link, "after")
        assert await link.ask("GET", "after") == b"after"
        assert await asyncio.to_thread(three.master) is not first


async def test_a_master_that_turned_read_only_is_lost_and_not_refusing(
    three: Watched, link: RedisLink
) -> None:
    await written(link, "before")
    first, second = three.servers
    master = RunningRedis("", [first])
    master.each("REPLICAOF", second.host, second.port)
    with pytest.raises(RedisAwayError) as caught:
        await link.write("SET", "key", "value")
    assert not isinstance(caught.value, RedisRefusedError)
    assert link.away
    # Whom the sentinel still names is none, so nobody comes back to it before it is one.
    await asyncio.sleep(0.6)
    assert link.away
    master.each("REPLICAOF", "NO", "ONE")
    await written(link, "after")


async def test_a_sentinel_that_says_nothing_is_passed_over(three: Watched) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        url = three.url.replace("@127.0.0.1:", f"@127.0.0.1:{port},127.0.0.1:")
        link = RedisLink(url, RedisSettings())
        await link.open()
        assert link.state == "answers"
        await written(link, "key")
        await link.close()
