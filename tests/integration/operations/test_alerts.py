"""Alerts of a real service: sent once, signed, tried again, silenced, taken over, remembered."""

import asyncio
import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import psutil
import pytest

from tests.integration.commands.test_check import environment
from tests.integration.operations.test_metrics import folder_of
from tests.support import sse
from tests.support.exposed import exposed
from tests.support.forked import feedsvc
from tests.support.processes import children
from tests.support.proxy import Fault, Proxy, proxied
from tests.support.raw import request, wire
from tests.support.servers import with_database, world_of_its_own
from tests.support.service import Running, bearer, serving
from tests.support.webhook import KEY, Receiver, receiving

PATH = "/api/performance/alerts"
MESSAGES = "feedsvc_webhook_messages_total"
ADMIN = bearer(role="admin", subject="ann")
RULES = """
[database-away]
figure = "database_away"
threshold = 0
for = "1s"
clear_for = "1s"
severity = "critical"
todo = "Look whether PostgreSQL runs."

[refusing]
figure = "rate_limited_per_minute"
threshold = 1000
for = "1s"
severity = "info"
todo = "Nothing."
"""


@pytest.fixture
async def own_world(admin_url: str) -> AsyncIterator[str]:
    """A world that no other test breaks."""
    async with world_of_its_own(admin_url) as url:
        yield url


@pytest.fixture
async def proxy(own_world: str) -> AsyncIterator[Proxy]:
    """A proxy between the service and its PostgreSQL."""
    port = urlsplit(own_world).port
    assert port is not None
    async with proxied(port) as made:
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


@asynccontextmanager
async def watched(
    database: str, folder: Path, receiver: Receiver, workers: int = 1, **settings: str
) -> AsyncIterator[Running]:
    """A service that quickly sees what is wrong; started aside, for it needs the proxy to start."""
    rules = folder / "alerts.toml"
    rules.write_text(RULES)
    given = {
        "FEEDSVC_ALERTS__FILE": str(rules),
        "FEEDSVC_ALERTS__INTERVAL": "0.2",
        "FEEDSVC_ALERTS__INSTANCE": "tests",
        "FEEDSVC_ALERTS__WEBHOOK_URL": receiver.url,
        "FEEDSVC_ALERTS__WEBHOOK_KEY": KEY,
        "FEEDSVC_ALERTS__WEBHOOK_TIMEOUT": "1",
        **{f"FEEDSVC_{name.upper()}": value for name, value in settings.items()},
    }
    starting = serving(database, settings=given, arguments=[f"--workers={workers}"])
    running = await asyncio.to_thread(starting.__enter__)
    try:
        yield running
    finally:
        await asyncio.to_thread(starting.__exit__, None, None, None)


def through(database: str, proxy: Proxy) -> str:
    return database.replace(f":{urlsplit(database).port}/", f":{proxy.port}/")


async def cut_off(proxy: Proxy) -> None:
    """PostgreSQL is gone: connections that there are end, and new ones end at once."""
    proxy.fault = Fault(cut_after=0)
    proxy._over.set()
    await asyncio.sleep(0.1)


def put_back(proxy: Proxy) -> None:
    proxy._over.clear()
    proxy.fault = Fault()


async def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)


async def two_looks(running: Running) -> None:
    """Wait until the alerts were evaluated twice more."""
    async with aiohttp.ClientSession(running.url) as client, asyncio.timeout(60):
        for _ in range(2):
            before = (await alerts(client))["evaluated_at"]
            while (await alerts(client))["evaluated_at"] == before:
                await asyncio.sleep(0.05)


async def alerts(client: aiohttp.ClientSession) -> dict[str, Any]:
    async with client.get(PATH, headers=ADMIN) as answer:
        assert answer.status == 200, await answer.text()
        return dict(await answer.json())


async def state(client: aiohttp.ClientSession, name: str = "database-away") -> dict[str, Any]:
    (found,) = [each for each in (await alerts(client))["alerts"] if each["name"] == name]
    return dict(found)


async def silence(client: aiohttp.ClientSession, seconds: str) -> None:
    wanted = {"alert": "database-away", "for": seconds, "reason": "a drill"}
    async with client.post(f"{PATH}/silences", json=wanted, headers=ADMIN) as answer:
        assert answer.status == 201, await answer.text()
        reported = await answer.json()
    assert (reported["alert"], reported["reason"]) == ("database-away", "a drill")


async def test_an_alert_is_sent_once_when_it_begins_and_once_when_it_ends(
    own_world: str, proxy: Proxy, receiver: Receiver, tmp_path: Path
) -> None:
    """With two workers, PostgreSQL gone and back, and a webhook that fails at first."""
    async with (
        watched(through(own_world, proxy), tmp_path, receiver, workers=2) as running,
        aiohttp.ClientSession(running.url) as client,
        client.get(PATH, params={"format": "sse"}, headers=ADMIN) as live,
    ):
        await two_looks(running)
        assert (await state(client))["state"] == "ok"
        receiver.answers = [500, 503, 429]
        await cut_off(proxy)
        # Told at the fourth attempt.
        await until(lambda: len(receiver.taken("database-away")) == 1)
        assert (await state(client))["state"] == "firing"
        assert (await alerts(client))["lacking"] is not None
        assert (await exposed(client)).total("feedsvc_alert_firing", alert="database-away") == 1
        put_back(proxy)
        await until(lambda: len(receiver.taken("database-away")) == 2)
        await two_looks(running)
        assert [event for _, event in receiver.taken("database-away")] == ["firing", "resolved"]
        tries = {message["id"] for message in receiver.received}
        assert len(receiver.received) == 5, "three failures, two messages"
        assert len(tries) == 2, "a message that is sent again has the same id"
        first = receiver.received[0]
        assert first["instance"] == "tests"
        assert (first["severity"], first["figure"]) == ("critical", "database_away")
        assert first["todo"] == "Look whether PostgreSQL runs."
        assert await phases(live, "database-away") == ["ok", "firing", "ok"]
        async with asyncio.timeout(60):  # figures and history are published a moment later
            while (await exposed(client)).total("feedsvc_alert_firing"):
                await asyncio.sleep(0.1)
            for outcome, count in (("delivered", 2), ("failed", 3)):
                while (await exposed(client)).total(MESSAGES, outcome=outcome) < count:
                    await asyncio.sleep(0.1)
            while len((found := await alerts(client))["history"]) < 2:
                await asyncio.sleep(0.1)
        assert found["lacking"] is None
        # On a busy machine PostgreSQL may seem away once more.
        assert [(e["alert"], e["event"]) for e in found["history"]][-2:] == [
            ("database-away", "resolved"),
            ("database-away", "firing"),
        ]
    reported = [line for line in running.log if "alert database-away" in line]
    assert 2 <= len(reported) < 2 * len(found["history"]), "one worker says so"
    assert '"CRITICAL"' in reported[0]
    assert "Look whether PostgreSQL runs." in reported[0]


async def phases(live: aiohttp.ClientResponse, name: str) -> list[str]:
    """The states of an alert in its events, but for `pending`, until it has fired and ended."""
    body, found = b"", list[str]()
    async with asyncio.timeout(60):
        while "firing" not in found or found[-1] != "ok":
            body += await live.content.readany()
            events = sse.parse(body).of_type("alerts")
            alerts = [each for event in events for each in json.loads(event.data)["alerts"]]
            found = [each["state"] for each in alerts if each["name"] == name]
            found = [each for each in found if each != "pending"]
    return [phase for n, phase in enumerate(found) if n == 0 or found[n - 1] != phase]


async def test_a_silenced_alert_is_sent_once_the_silence_is_over(
    own_world: str, proxy: Proxy, receiver: Receiver, tmp_path: Path
) -> None:
    async with (
        watched(through(own_world, proxy), tmp_path, receiver) as running,
        aiohttp.ClientSession(running.url) as client,
    ):
        # PostgreSQL keeps silences and is away then, so that only its time can end it.
        await silence(client, "10s")
        found = await state(client)
        assert found["silenced_for"] == "a drill"
        until_when = found["silenced_until"]
        await cut_off(proxy)
        deadline = time.monotonic() + 60
        while (await state(client))["state"] != "firing":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
        if time.time() < until_when - 2:  # else the machine was too slow to see it
            assert receiver.received == []
        await until(lambda: len(receiver.taken("database-away")) == 1)
        assert time.time() >= until_when
        put_back(proxy)
        await until(lambda: len(receiver.taken("database-away")) == 2)
        history = (await alerts(client))["history"]
        silenced = history[-1]
        assert (silenced["event"], silenced["reason"]) == ("silenced", "a drill")
        assert silenced["subject"] == "ann"


async def test_a_silence_can_be_ended_and_is_in_the_audit_log(
    own_world: str, admin_url: str, proxy: Proxy, receiver: Receiver, tmp_path: Path
) -> None:
    async with (
        watched(through(own_world, proxy), tmp_path, receiver) as running,
        aiohttp.ClientSession(running.url) as client,
    ):
        await silence(client, "1d")
        await silence(client, "0s")
        assert (await state(client))["silenced_until"] is None
        admin = await asyncpg.connect(with_database(admin_url, own_world.rpartition("/")[2]))
        sql = "SELECT subject, status FROM feedsvc.audit WHERE route = $1"
        deadline = time.monotonic() + 60
        while len(rows := await admin.fetch(sql, f"{PATH}/silences")) < 2:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        await admin.close()
        assert [tuple(row) for row in rows] == [("ann", 201)] * 2
        await cut_off(proxy)
        await until(lambda: len(receiver.taken("database-away")) == 1)
        put_back(proxy)  # or its stop would wait for it


@asynccontextmanager
async def holding_the_lock(running: Running) -> AsyncIterator[None]:
    """Hold the lock of the board, as one that is frozen in the midst of a change does."""
    with (folder_of(running) / "alerts.lock").open("r+b") as lock:
        async with asyncio.timeout(60):
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(0.01)
        yield


@pytest.mark.parametrize(
    ("how", "is_locked"),
    [(signal.SIGKILL, False), (signal.SIGSTOP, False), (signal.SIGSTOP, True)],
)
async def test_another_worker_takes_over_from_one_that_is_dead_or_frozen(
    own_world: str,
    proxy: Proxy,
    receiver: Receiver,
    tmp_path: Path,
    how: signal.Signals,
    is_locked: bool,
) -> None:
    async with (
        watched(through(own_world, proxy), tmp_path, receiver, workers=2) as running,
        AsyncExitStack() as stack,
    ):
        await two_looks(running)
        before = owner(running)
        victim = int(before.partition("-")[0])
        assert victim in children(running.pid)
        await stack.enter_async_context(holding_the_lock(running) if is_locked else nullcontext())
        os.kill(victim, how)
        try:
            await cut_off(proxy)
            await until(lambda: len(receiver.taken("database-away")) == 1)
            assert owner(running) != before
            put_back(proxy)
            await until(lambda: len(receiver.taken("database-away")) == 2)
        finally:
            if how is signal.SIGSTOP:
                os.kill(victim, signal.SIGCONT)
        await two_looks(running)
        reported = [event for _, event in receiver.taken("database-away")]
        # Nothing is told twice. But on a busy machine one that wakes takes so long to find new
        # connections that it is away anew; of one that is dead nothing more is heard.
        rounds = len(reported) if how is signal.SIGSTOP else 2
        assert reported == (["firing", "resolved"] * rounds)[:rounds]


def board(running: Running) -> dict[str, Any]:
    try:
        return dict(json.loads((folder_of(running) / "alerts.now").read_bytes()))
    except FileNotFoundError:
        return {"owner": "", "states": {}}


def owner(running: Running) -> str:
    return str(board(running)["owner"])


async def test_a_service_that_is_started_again_says_that_it_is_over(
    own_world: str, proxy: Proxy, receiver: Receiver, tmp_path: Path
) -> None:
    async with (
        watched(through(own_world, proxy), tmp_path, receiver) as running,
        aiohttp.ClientSession(running.url) as client,
    ):
        await cut_off(proxy)
        await until(lambda: len(receiver.taken("database-away")) == 1)
        put_back(proxy)
        while not (await alerts(client))["history"]:
            await asyncio.sleep(0.1)
        assert (await state(client))["state"] in ("firing", "ok")
    async with watched(through(own_world, proxy), tmp_path, receiver):
        await until(lambda: len(receiver.taken("database-away")) == 2)
    assert [event for _, event in receiver.taken("database-away")] == ["firing", "resolved"]


async def test_a_reload_brings_new_alerts_though_an_old_worker_still_streams(
    own_world: str, receiver: Receiver, tmp_path: Path
) -> None:
    async with (
        watched(own_world, tmp_path, receiver, 2, streams__stall_timeout="110") as running,
        AsyncExitStack() as stack,
    ):
        ask = request("/v1/feeds/clients?format=ndjson", f"Authorization: {ADMIN['Authorization']}")
        await until(lambda: board(running)["owner"] != "")
        old = int(owner(running).partition("-")[0])
        while not is_connected(old, running.port):
            stalled = await stack.enter_async_context(wire(running, receive_buffer=4_096))
            await stalled.send(ask)
            await asyncio.sleep(0.1)
        (tmp_path / "alerts.toml").write_text(RULES.replace("[refusing]", "[renamed]"))
        os.kill(running.pid, signal.SIGHUP)
        await until(lambda: "renamed" in board(running)["states"], 60)
        assert old in children(running.pid), "it still has its stream"
        assert int(owner(running).partition("-")[0]) != old


def is_connected(pid: int, port: int) -> bool:
    """Return whether a client of the service is with this worker."""
    found = psutil.Process(pid).net_connections("tcp")
    return any(c.status == psutil.CONN_ESTABLISHED and c.laddr.port == port for c in found)


async def test_what_a_webhook_can_do_wrong(
    own_world: str, proxy: Proxy, receiver: Receiver, tmp_path: Path
) -> None:
    """It refuses, it sends elsewhere, it never answers; one alert after the other."""
    async with watched(through(own_world, proxy), tmp_path, receiver) as running:
        for answers, hangs, tries in (([400], False, 1), ([302], False, 1), ([], True, 2)):
            await two_looks(running)
            lines = len(running.log)
            receiver.received.clear()
            receiver.answers, receiver.hangs = [*answers], hangs
            await cut_off(proxy)
            await until(lambda tries=tries: len(receiver.received) >= tries)  # type: ignore[misc]
            receiver.hangs = False
            put_back(proxy)
            await until(
                lambda: "resolved" in [event for _, event in receiver.taken("database-away")]
            )
            delivered = [message["answered"] for message in receiver.received].count(204)
            assert delivered == (2 if hangs else 1)
            said = "".join(running.log[lines:])
            assert "alerts: the webhook" in said
            assert receiver.url not in said, "an address may hold a secret"


@pytest.mark.parametrize(
    ("body", "status", "parameter"),
    [
        ("{", 400, None),
        ("[]", 400, None),
        ('{"alert": "nothing", "for": "1h", "reason": "x"}', 400, "alert"),
        ('{"alert": ["failing"], "for": "1h", "reason": "x"}', 400, "alert"),
        ('{"alert": "failing", "for": "1 hour", "reason": "x"}', 400, "for"),
        ('{"alert": "failing", "for": 60, "reason": "x"}', 400, "for"),
        ('{"alert": "failing", "for": "31d", "reason": "x"}', 400, "for"),
        ('{"alert": "failing", "for": "1h", "reason": " "}', 400, "reason"),
        ('{"alert": "failing", "for": "1h", "reason": "a\\u0000b"}', 400, "reason"),
        ('{"alert": "failing", "for": "1h"}', 400, "reason"),
        ('{"alert": "failing", "for": "1h", "reason": "x", "by": "me"}', 400, "by"),
    ],
)
async def test_a_silence_that_makes_no_sense(
    http: aiohttp.ClientSession, body: str, status: int, parameter: str | None
) -> None:
    async with http.post(f"{PATH}/silences", data=body, headers=ADMIN) as answer:
        reported = await answer.json()
    assert (answer.status, reported.get("parameter")) == (status, parameter)


async def test_a_database_without_the_table_has_states_and_messages_all_the_same(
    own_world: str, admin_url: str, proxy: Proxy, receiver: Receiver, tmp_path: Path
) -> None:
    admin = await asyncpg.connect(with_database(admin_url, own_world.rpartition("/")[2]))
    await admin.execute("DROP TABLE feedsvc.alerts")
    await admin.close()
    async with (
        watched(through(own_world, proxy), tmp_path, receiver) as running,
        aiohttp.ClientSession(running.url) as client,
    ):
        await two_looks(running)
        found = await alerts(client)
        assert "not set up" in found["lacking"]
        assert found["evaluated_at"] is not None
        wanted = {"alert": "database-away", "for": "1h", "reason": "x"}
        async with client.post(f"{PATH}/silences", json=wanted, headers=ADMIN) as answer:
            assert (answer.status, (await answer.json())["type"]) == (
                503, "/problems/not-set-up",
            )  # fmt: skip
        await cut_off(proxy)
        await until(lambda: len(receiver.taken("database-away")) == 1)
        put_back(proxy)


async def test_an_instance_without_a_name_has_its_host_and_the_port_that_it_listens_on(
    service: Running, http: aiohttp.ClientSession
) -> None:
    """The settings say 0, that is any."""
    assert (await alerts(http))["instance"] == f"{socket.gethostname()}:{service.port}"


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_mistake_in_the_alerts_stops_check_and_start(
    world_url: str, tmp_path: Path, command: str
) -> None:
    file = tmp_path / "own-alerts.toml"
    file.write_text('[slow]\nfigure = "p96"\nthreshold = 1\nseverity = "info"\ntodo = "x"\n')
    done = feedsvc(command, env=environment(world_url, FEEDSVC_ALERTS__FILE=str(file)))
    assert done.returncode == 1
    assert f"{file}: slow.figure: there is no 'p96'" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_webhook_without_a_key_stops_the_start_by_name(world_url: str) -> None:
    env = environment(world_url, FEEDSVC_ALERTS__WEBHOOK_URL="https://hooks.example.com/s3cret")
    done = feedsvc("config", env=env)
    assert done.returncode == 1
    assert "webhook_key must be set" in done.stderr
    env |= {"FEEDSVC_ALERTS__WEBHOOK_KEY": KEY}
    done = feedsvc("config", env=env)
    assert done.returncode == 0
    assert "s3cret" not in done.stdout
    assert KEY not in done.stdout
