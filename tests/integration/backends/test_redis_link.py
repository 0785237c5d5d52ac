"""Redis is asked and never waited for; no request gets another's answer."""

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from feedsvc.backends.redis.connect import transport_factory
from feedsvc.backends.redis.link import RedisAwayError, RedisLink, RedisRefusedError
from feedsvc.backends.redis.transport import Transport
from feedsvc.commands.demo.embedded.valkey import ValkeyServer
from feedsvc.core.events import Observers, RedisTurned
from feedsvc.settings import Redis as RedisSettings
from tests.support.redis_server import RunningRedis, redis_running

SETTINGS = RedisSettings()
PATIENT = RedisSettings(timeout=5)
"""For tests of answers alone: a loaded machine needs more than 0.1 s for megabytes."""
BUSY = RedisSettings(timeout=0.3)
"""For a loop that is busy for longer, where a loaded machine has Redis wait for its turn, too."""


@pytest.fixture(scope="module", params=["redis", "valkey", "cluster"])
def server(request: pytest.FixtureRequest) -> Iterator[RunningRedis]:
    with redis_running(request.param) as server:
        yield server


patiently = pytest.mark.parametrize("link", [PATIENT], ids=["patient"], indirect=True)
of_a_cluster = pytest.mark.parametrize("server", ["cluster"], indirect=True)


@pytest.fixture
async def link(server: RunningRedis, request: pytest.FixtureRequest) -> AsyncIterator[RedisLink]:
    link = RedisLink(server.url, getattr(request, "param", SETTINGS))
    await link.open()
    await back(link)  # a busy machine may be late with the first answer
    yield link
    await link.close()


async def back(link: RedisLink) -> None:
    """Return once it is back."""
    async with asyncio.timeout(30):
        while link.state != "answers":
            await asyncio.sleep(0.02)


def assert_away(link: RedisLink) -> None:
    """A question fails as it is asked: its coroutine never waits for anything."""
    for number in range(100):
        with pytest.raises(RedisAwayError):
            link.ask("GET", f"key {number}").send(None)


@patiently
async def test_the_answer_to_a_cancelled_question_goes_to_no_other(link: RedisLink) -> None:
    """CVE-2023-28858: the answer stayed on the connection for whoever asked next."""
    for number in range(50):
        await link.write("SET", f"user:{number}", f"value of {number}")

    async def read(number: int, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                answer = await link.ask("GET", f"user:{number}")
        except (TimeoutError, RedisAwayError):
            return
        assert answer == f"value of {number}".encode()

    generator = random.Random(7)
    for _ in range(40):
        readers = [read(n, generator.choice((0.0, 0.0002, 0.0005, 0.001, 1.0))) for n in range(50)]
        await asyncio.gather(*readers)
    await back(link)
    assert await link.ask("GET", "user:7") == b"value of 7"


@patiently
async def test_large_and_small_values_share_the_way(link: RedisLink) -> None:
    values = {f"size {size}": bytes([size % 251]) * size for size in (0, 1, 5_000, 70_000, 900_000)}
    for name, value in values.items():
        await link.write("SET", name, value)
    for _ in range(5):
        asked = [*values] * 4
        answers = await asyncio.gather(*(link.ask("GET", name) for name in asked))
        assert answers == [values[name] for name in asked]


@patiently
async def test_many_commands_have_an_answer_each(link: RedisLink) -> None:
    await link.write("SET", "text", "x")
    script = "return redis.call('INCR', KEYS[1])"
    commands = [("EVAL", script, 1, f"number {n % 20}") for n in range(200)]
    await link.write_all([("DEL", f"number {n}") for n in range(20)])
    answers = await link.write_all([*commands, ("INCR", "text")])
    assert answers[:200] == [n // 20 + 1 for n in range(200)]
    assert isinstance(answers[200], RedisRefusedError)
    assert link.state == "answers"


@patiently
async def test_an_error_is_an_answer(link: RedisLink) -> None:
    before = link.refusals
    await link.write("SET", "text", "x")
    with pytest.raises(RedisRefusedError):
        await link.ask("HVALS", "text")
    assert link.state == "answers"
    assert link.refusals == before + 1
    assert await link.ask("GET", "text") == b"x"


async def test_a_redis_that_cannot_write_to_its_disk_is_read_from() -> None:
    """MISCONF: a dump failed, so it refuses to keep anything until one succeeds."""
    with redis_running("redis", {"save": "3600 1"}) as server:
        link, [node] = RedisLink(server.url, SETTINGS), server.nodes
        await link.open()
        await link.write("SET", "key", "value")
        folder = node.process.folder / "valkey"
        folder.chmod(0o500)
        try:
            await dumped(server, "err")
            with pytest.raises(RedisRefusedError, match="MISCONF"):
                await link.write("SET", "key", "other")
            assert link.state == "refuses"
            assert await link.ask("GET", "key") == b"value"
            assert link.refusals == 1
            with pytest.raises(RedisRefusedError):
                await link.write("SET", "key", "other")
        finally:
            folder.chmod(0o700)
        await dumped(server, "ok")
        await back(link)
        await link.write("SET", "key", "other")
        assert await link.ask("GET", "key") == b"other"
        await link.close()


async def dumped(server: RunningRedis, outcome: str) -> None:
    """Dump to its disk, until that has this outcome."""
    async with asyncio.timeout(30):
        while server.each("INFO", "persistence")[0]["rdb_last_bgsave_status"] != outcome:
            if not server.each("INFO", "persistence")[0]["rdb_bgsave_in_progress"]:
                server.each("BGSAVE")
            await asyncio.sleep(0.05)


async def test_a_frozen_redis_delays_only_questions_asked_before_its_deadline(
    link: RedisLink, server: RunningRedis
) -> None:
    await link.write("SET", "key", "value")
    with server.frozen():
        misses, miss = [0], link._deadline._missed

        def counted() -> None:
            misses[0] += 1
            miss()

        link._deadline._missed = counted
        asked = [link.ask("GET", f"key {number}") for number in range(100)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert misses == [1], "one waits for the other"
        assert all(isinstance(answer, RedisAwayError) for answer in answers)
        assert_away(link)
        with pytest.raises(RedisAwayError):
            await link.write_all([("SET", "key", "value")])
    await back(link)
    assert await link.ask("GET", "key") == b"value"


@of_a_cluster
async def test_one_frozen_node_of_a_cluster_is_waited_for_once(server: RunningRedis) -> None:
    for node in server.nodes:
        link = RedisLink(server.url, SETTINGS)
        await link.open()
        await back(link)
        asked = [link.ask("GET", f"none {n}") for n in range(30)]
        assert await asyncio.gather(*asked) == [None] * 30
        with RunningRedis("", [node]).frozen():
            asked = [link.ask("GET", f"none {n}") for n in range(30)]
            await asyncio.gather(*asked, return_exceptions=True)
            assert_away(link)
            # The others answer, which must not let questions for this one through.
            await asyncio.sleep(0.6)
            assert_away(link)
        await back(link)
        await link.close()


@of_a_cluster
@patiently
async def test_a_slot_that_moves_is_followed(link: RedisLink, server: RunningRedis) -> None:
    await link.write("SET", "{moves}1", "one")
    slot = server.each("CLUSTER KEYSLOT", "{moves}1")[0]
    source = next(node for node in server.nodes if node_has(node, "{moves}1"))
    target = next(node for node in server.nodes if node is not source)
    from_node, to_node = RunningRedis("", [source]), RunningRedis("", [target])
    [from_id], [to_id] = from_node.each("CLUSTER MYID"), to_node.each("CLUSTER MYID")
    to_node.each("CLUSTER SETSLOT", slot, "IMPORTING", from_id)
    from_node.each("CLUSTER SETSLOT", slot, "MIGRATING", to_id)
    from_node.each(
        "MIGRATE", target.host, target.port, "{moves}1", 0, 5_000, "AUTH", target.password
    )
    # On its way: the old owner says ASK.
    assert await link.ask("GET", "{moves}1") == b"one"
    assert await link.write("SET", "{moves}2", "two")
    for node in (to_node, from_node):
        node.each("CLUSTER SETSLOT", slot, "NODE", to_id)
    # Moved: it says MOVED, and need not be asked again.
    for _ in range(10):
        asked = [link.ask("GET", f"{{moves}}{n}") for n in (1, 2)]
        assert await asyncio.gather(*asked) == [b"one", b"two"]
    script = "return redis.call('GET', KEYS[1])"
    assert await link.write_all([("EVAL", script, 1, "{moves}2")] * 3) == [b"two"] * 3
    assert (link.state, link.refusals) == ("answers", 0)


def node_has(node: ValkeyServer, key: str) -> bool:
    return key.encode() in RunningRedis("", [node]).keys("*")


@patiently
@pytest.mark.parametrize("fault", ["full", "read-only"])
async def test_a_redis_that_keeps_nothing_is_still_read_from(
    link: RedisLink, server: RunningRedis, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    await link.write("SET", "key", "value")
    if fault == "full":
        server.configure("maxmemory-policy", "noeviction")
        server.configure("maxmemory", "1")
    else:
        server.refuse_writes(True)
    try:
        with pytest.raises(RedisRefusedError):
            await link.write("SET", "key", "another")
        assert link.state == "refuses"
        before = link.refusals
        for _ in range(300):
            with pytest.raises(RedisRefusedError):
                await link.write("SET", "key", "another")
            assert await link.ask("GET", "key") == b"value"
        assert link.refusals == before + 300
        assert not link.away
        assert sum("refused" in line for line in caplog.messages) == 1
    finally:
        if fault == "full":
            server.configure("maxmemory", "0")
        else:
            server.refuse_writes(False)
    async with asyncio.timeout(60):
        while True:  # a cluster's node may look whether it has replicas only now and then
            await back(link)
            try:
                assert await link.write("SET", "key", "another")
            except RedisRefusedError:
                continue
            break
    assert await link.ask("GET", "key") == b"another"


async def test_a_redis_that_is_killed_is_away_and_back_by_itself(server: RunningRedis) -> None:
    turns: list[bool] = []
    observers = Observers()
    observers.add(RedisTurned, lambda turned: turns.append(turned.answers))
    link = RedisLink(server.url, PATIENT, observers)
    await link.open()
    assert await link.write("SET", "key", "value")
    server.kill()
    with pytest.raises(RedisAwayError):
        await link.ask("GET", "key")
    assert_away(link)
    await asyncio.to_thread(server.start)
    await back(link)
    assert await link.ask("GET", "key") is None, "what it held was lost"
    assert await link.write("SET", "key", "value")
    assert turns == [False, True]
    await link.close()


async def test_a_connection_that_redis_closes_while_it_is_idle_is_no_absence(
    link: RedisLink, server: RunningRedis
) -> None:
    await link.write("SET", "key", "value")
    for _ in range(3):
        server.each("CLIENT KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(0.1)
        assert await link.ask("GET", "key") == b"value"


@pytest.mark.parametrize("link", [BUSY], ids=["busy"], indirect=True)
async def test_a_busy_loop_is_not_held_against_redis(link: RedisLink) -> None:
    """As hundreds of requests at once keep it: each takes a while before and behind its answer."""
    await link.write("SET", "key", "value")

    async def request() -> object:
        _busy(0.0005)
        answer = await link.ask("GET", "key")
        _busy(0.0005)
        return answer

    assert await asyncio.gather(*(request() for _ in range(700))) == [b"value"] * 700
    asking = asyncio.create_task(link.ask("GET", "key"))
    for _ in range(3):
        await asyncio.sleep(0)
    _busy(3 * BUSY.timeout)
    assert await asking == b"value"
    assert link.state == "answers"


def _busy(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


async def test_an_address_without_a_server_costs_no_more() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and never listens, so that no one else can, either
        port = silent.getsockname()[1]
        for shape in ("redis://127.0.0.1:{}", "redis+cluster://127.0.0.1:{}", "unix:///no/{}",
                      "redis+sentinel://127.0.0.1:{}/feeds"):  # fmt: skip
            link = RedisLink(shape.format(port), SETTINGS)
            with pytest.raises(RedisAwayError):
                await link.ask("GET", "key")
            assert_away(link)
            await link.close()


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$5\r\nabc", b"$x\r\n", b"+OK\r\n+OK\r\n", b""]
)
async def test_what_does_not_speak_redis_is_away(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        link = RedisLink(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", SETTINGS)
        await link.open()
        with pytest.raises(RedisAwayError):
            await link.ask("GET", "key")
        assert link.away
        await link.close()


@of_a_cluster
async def test_a_clusters_node_alone_is_of_little_use_and_says_so(
    server: RunningRedis, caplog: pytest.LogCaptureFixture
) -> None:
    link = RedisLink(server.nodes[0].url, SETTINGS)
    asked = [link.ask("GET", f"none {n}") for n in range(30)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(answer) for answer in answers} == {RedisRefusedError, type(None)}
    assert any("write redis+cluster://" in line for line in caplog.messages)
    await link.close()


async def test_a_single_server_is_no_cluster() -> None:
    with redis_running("redis") as single:
        link = RedisLink(single.url.replace("redis://", "redis+cluster://"), SETTINGS)
        await link.open()
        assert link.away
        await link.close()


async def test_closing_ends_what_is_asked_and_what_is_away(
    server: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: asyncio.Queue[Transport] = asyncio.Queue()

    def noticed(*given: Any) -> Callable[[], Transport]:
        make = transport_factory(*given)

        def way() -> Transport:
            made.put_nowait(one := make())
            return one

        return way

    monkeypatch.setattr("feedsvc.backends.redis.link.transport_factory", noticed)
    before = asyncio.all_tasks()
    link = RedisLink(server.url, SETTINGS)
    await link.open()
    await made.get()
    with server.frozen():
        with pytest.raises(RedisAwayError):
            await link.ask("GET", "key")
        async with asyncio.timeout(30):
            await made.get()  # it tries to come back just now
            await link.close()
        assert asyncio.all_tasks() == before, "something is still tried"
