"""SIGTERM under load, and workers that die: no client is cut off that could still be served."""

from __future__ import annotations

import asyncio
import http.client
import importlib
import json
import os
import re
import signal
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import aiohttp
import pytest

from tests.support import slow_world, sse
from tests.support.processes import children
from tests.support.servers import as_login
from tests.support.service import Running, bearer, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from multidict import CIMultiDictProxy

    from tests.integration.conftest import NewDatabase

psutil = importlib.import_module("psutil")  # it has no type stubs

SLACK = 30.0  # seconds: what an exit may take beyond its deadlines on a busy machine

FORMS = ["format=json", "format=csv", "format=ndjson", "format=sse", "format=ndjson&frames=1"]
ROW = re.compile(rb'(?:"n":|^)(\d+),', re.MULTILINE)


class Serve(Protocol):
    """Starts a service with this drain timeout and so many workers."""

    def __call__(self, drain_timeout: float, workers: int) -> AbstractContextManager[Running]: ...


class Body(NamedTuple):
    """The bytes of a body that arrived, and whether the final chunk did."""

    data: bytes
    whole: bool

    def rows(self) -> list[int]:
        """The `n` of each row that arrived, in whichever format."""
        return [int(n) for n in ROW.findall(self.data)]

    def last_frame(self) -> tuple[str, dict[str, Any]]:
        """The last frame of a framed body, with its kind."""
        if self.data.startswith((b"event:", b"retry:")):
            event = sse.parse(self.data).events[-1]
            return event.type, json.loads(event.data)
        frame: dict[str, Any] = json.loads(self.data.splitlines()[-1])
        return frame.popitem()


class Answer(NamedTuple):
    """A short answer, read whole."""

    status: int
    headers: CIMultiDictProxy[str]
    json: Any


@pytest.fixture(scope="module")
async def serve(
    new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Serve]:
    datasets: Path = tmp_path_factory.mktemp("drain") / "datasets.toml"
    datasets.write_text(slow_world.DATASETS)
    async with new_database(script=slow_world.SCHEMA) as url:

        def start(drain_timeout: float, workers: int) -> AbstractContextManager[Running]:
            return serving(
                as_login(url),
                datasets=datasets,
                settings={
                    "FEEDSVC_STREAMS__DRAIN_TIMEOUT": str(drain_timeout),
                    "FEEDSVC_POOLS__BULK__SIZE": "12",
                    "FEEDSVC_POOLS__BULK__SHARE": "1",  # one tenant, one dataset
                },
                arguments=[f"--workers={workers}"],
            )

        yield start


class Streams:
    """Streams under way, each of which has got rows already."""

    def __init__(self) -> None:
        self.reading = list[asyncio.Task[Body]]()

    async def begin(self, service: Running, paths: list[str]) -> None:
        connections = []
        for path in paths:
            connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
            connection.request("GET", path, headers=bearer())
            connections.append(connection)
        answers = [await asyncio.to_thread(connection.getresponse) for connection in connections]
        assert [answer.status for answer in answers] == [200] * len(paths)
        begun = [await asyncio.to_thread(answer.read1) for answer in answers]
        self.reading = [
            asyncio.create_task(asyncio.to_thread(_read_on, connection, answer, first))
            for connection, answer, first in zip(connections, answers, begun, strict=True)
        ]

    async def bodies(self, seconds: float) -> list[Body]:
        return await asyncio.wait_for(asyncio.gather(*self.reading), seconds)


def _read_on(
    connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, first: bytes
) -> Body:
    try:
        return Body(first + answer.read(), whole=True)
    except http.client.IncompleteRead as cut:
        return Body(first + cut.partial, whole=False)
    finally:
        answer.close()
        connection.close()
        connection.close()


async def ask(service: Running, path: str) -> Answer:
    """Ask on a connection of its own."""
    async with aiohttp.request("GET", service.url + path, headers=bearer()) as answer:
        return Answer(answer.status, answer.headers, await answer.json(content_type=None))


async def until(condition: Callable[[], Awaitable[object]], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        await asyncio.sleep(0.02)


async def exit_code(service: Running, seconds: float) -> int:
    return await asyncio.to_thread(service.process.wait, seconds)


async def is_draining(service: Running) -> bool:
    return (await ask(service, "/ready")).status == 503


async def all_drain(service: Running, workers: int) -> bool:
    """Return whether each worker has been told: the next request may go to any of them."""
    return sum("draining; a second signal" in line for line in service.log) == workers


def workers_of(service: Running) -> set[int]:
    return {*children(service.pid)}


async def assert_new_streams_are_refused(service: Running) -> None:
    """And pages and rows are answered, for the last time on a connection."""
    ready = await ask(service, "/ready")
    assert (ready.status, ready.json["reason"]) == (503, "the process is stopping")
    for form in FORMS:
        refused = await ask(service, f"/v1/feeds/quick?{form}")
        assert (refused.status, refused.json["type"]) == (503, "/problems/draining")
        assert int(refused.headers["Retry-After"]) > 0
    page = await ask(service, "/v1/feeds/quick?limit=20")
    assert (page.status, len(page.json)) == (200, 20)
    assert page.headers["Connection"] == "close"
    assert (await ask(service, "/v1/feeds/quick/7")).json == {"n": 7}


@pytest.mark.parametrize("workers", [1, 2])
async def test_running_streams_finish_and_new_ones_are_sent_elsewhere(
    serve: Serve, workers: int
) -> None:
    with serve(60, workers) as service:
        streams = Streams()
        await streams.begin(service, [f"/v1/feeds/brief?{form}" for form in FORMS * workers])
        endless = service.url + "/v1/feeds/endless?format=ndjson"
        # For as long as its client is there one worker is, too, however long the questions take.
        async with aiohttp.request("GET", endless, headers=bearer()) as held:
            assert held.status == 200
            service.terminate()
            await until(lambda: all_drain(service, workers), 60.0)
            await assert_new_streams_are_refused(service)
        for body in await streams.bodies(SLACK):
            assert body.whole
            assert body.rows() == list(range(1, 401))
        assert await exit_code(service, SLACK) == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_what_outlasts_the_drain_timeout_ends_as_failed_and_resumable(
    serve: Serve, workers: int
) -> None:
    with serve(1, workers) as service:
        streams = Streams()
        forms = [*FORMS, *["format=sse"] * 3]
        await streams.begin(service, [f"/v1/feeds/endless?{form}" for form in forms])
        began = time.monotonic()
        service.terminate()
        bodies = await streams.bodies(1 + SLACK)
        assert time.monotonic() - began >= 1
        assert await exit_code(service, SLACK) == 0
    for body in bodies:
        assert not body.whole
        assert body.rows() == list(range(1, len(body.rows()) + 1))
    for body in bodies[3:]:
        kind, failure = body.last_frame()
        assert (kind, failure["type"], failure["status"]) == ("error", "/problems/draining", 503)
        assert failure["after"] == str(len(body.rows()))
    # An EventSource is told when to come back, and not all of them at once.
    retries = [sse.parse(body.data).retry for body in (bodies[3], *bodies[5:])]
    assert None not in retries
    assert len(set(retries)) > 1


@pytest.mark.parametrize(("workers", "number"), [(1, signal.SIGTERM), (2, signal.SIGINT)])
async def test_a_second_signal_stops_at_once(
    serve: Serve, workers: int, number: signal.Signals
) -> None:
    with serve(60, workers) as service:
        streams = Streams()
        await streams.begin(service, [f"/v1/feeds/endless?{form}" for form in FORMS])
        service.process.send_signal(number)
        await until(lambda: is_draining(service), SLACK)
        service.process.send_signal(number)
        for body in await streams.bodies(SLACK):
            assert not body.whole
        assert await exit_code(service, SLACK) == 0


async def test_a_worker_that_is_killed_is_replaced_while_requests_go_on(serve: Serve) -> None:
    with serve(5, 2) as service:
        first = workers_of(service)
        for victim in first:
            os.kill(victim, signal.SIGKILL)
            await until(lambda: two_answering(service, victim), 60.0)  # noqa: B023 - awaited before the next
        second = workers_of(service)
        assert not second & first
        service.terminate()
        assert await exit_code(service, SLACK) == 0
    assert not any(psutil.pid_exists(worker) for worker in second)


async def two_answering(service: Running, victim: int) -> bool:
    """Return whether there are two workers again; whoever is there answers meanwhile."""
    assert (await ask(service, "/v1/feeds/quick?limit=20")).status == 200
    return len(workers_of(service) - {victim}) == 2
