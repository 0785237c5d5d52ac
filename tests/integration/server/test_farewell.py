"""Stopping: a balancer has time to notice, and idle connections end without a reset."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.support.raw import request, wire
from tests.support.service import NO_REDIS, REPOSITORY, Running, bearer, serving

PAGE = "/v1/feeds/clients?limit=5"
TOKEN = f"Authorization: {bearer()['Authorization']}"
AN_HOUR = 3_600
IDLE = 20  # connections
SOON = 30.0  # seconds


@contextmanager
def delaying(world_url: str, delay: float, workers: int = 1) -> Iterator[Running]:
    settings = {**NO_REDIS, "FEEDSVC_SERVER__SHUTDOWN_DELAY": str(delay)}
    with serving(world_url, settings=settings, arguments=[f"--workers={workers}"]) as running:
        yield running


async def ask(service: Running, path: str) -> int:
    """The status on a connection of its own."""
    async with aiohttp.request("GET", service.url + path, headers=bearer()) as answer:
        await answer.read()
        return answer.status


@pytest.mark.parametrize("workers", [1, 2])
async def test_requests_are_answered_while_the_balancer_looks_elsewhere(
    world_url: str, workers: int
) -> None:
    with delaying(world_url, AN_HOUR, workers) as service:
        async with wire(service) as kept:
            await kept.send(request(PAGE, TOKEN))
            assert (await kept.answer()).status == 200
            service.terminate()
            async with asyncio.timeout(SOON):
                while await ask(service, "/ready") != 503:
                    await asyncio.sleep(0.02)
            assert await ask(service, "/live") == 200
            assert await ask(service, "/v1/feeds/clients?format=ndjson") == 200
            await kept.send(request(PAGE, TOKEN))
            assert (await kept.answer()).status == 200
        service.terminate()
        assert await asyncio.to_thread(service.process.wait, SOON) == 0


async def test_the_delay_ends_by_itself(world_url: str) -> None:
    with delaying(world_url, 0.2, workers=2) as service:
        service.terminate()
        assert await asyncio.to_thread(service.process.wait, SOON) == 0
        assert any("answered for another 0.2 s" in line for line in service.log)


async def test_a_request_that_meets_the_end_of_its_connection_is_not_reset(world_url: str) -> None:
    with serving(world_url, settings=NO_REDIS) as service:
        clients = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(IDLE)]
        for client in clients:
            client.sendall(request("/live"))
            assert b"200" in client.recv(4_096)
        service.terminate()
        ends = await asyncio.gather(*(asyncio.to_thread(_end_of, client) for client in clients))
        # One that looks only a second after it was told finds the process gone.
        assert "clean" in ends, ends
        assert await asyncio.to_thread(service.process.wait, SOON) == 0


def _end_of(client: socket.socket) -> str:
    """The end of a connection whose client had just sent another request."""
    with client:
        client.settimeout(SOON)
        try:
            while client.recv(4_096):
                pass
            for half in (request("/live")[:10], request("/live")[10:]):
                client.sendall(half)  # the second time, a reset would be a broken pipe
            return "clean" if client.recv(4_096) == b"" else "answered"
        except ConnectionError:
            return "reset"


def test_the_container_gives_a_balancer_time() -> None:
    assert "FEEDSVC_SERVER__SHUTDOWN_DELAY=5" in Path(REPOSITORY, "Dockerfile").read_text()
