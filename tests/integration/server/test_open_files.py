"""A process that may open few files has fewer connections, and still reaches PostgreSQL."""

import asyncio
import importlib
import resource
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from feedsvc.server.open_files import TooFewFilesError, bounded, reserve
from feedsvc.settings import Settings
from tests.support.raw import request, wire
from tests.support.service import Running, bearer, serving

psutil = importlib.import_module("psutil")  # it has no type stubs

TOKEN = f"Authorization: {bearer()['Authorization']}"
CROWD = 1_500
HARD = 1_024
LIMITED = ("sh", "-c", f'ulimit -S -n 400; ulimit -H -n {HARD}; exec "$@"', "sh")


@pytest.fixture(scope="module")
def many_files() -> Iterator[None]:
    """Room for the crowd in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * CROWD
    if 0 <= hard < wanted:
        pytest.skip(f"this machine allows {hard} open files, and {wanted} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def limited(world_url: str, many_files: None) -> Iterator[Running]:
    settings = {"FEEDSVC_SERVER__HEADER_TIMEOUT": "300", "FEEDSVC_CACHE__ENABLED": "0"}
    with serving(world_url, settings=settings, wrapper=LIMITED) as running:
        yield running


async def test_a_crowd_of_one_address_leaves_room_for_others_and_for_postgresql(
    limited: Running,
) -> None:
    assert psutil.Process(limited.pid).rlimit(psutil.RLIMIT_NOFILE) == (HARD, HARD)
    async with AsyncExitStack() as stack:
        for _ in range(CROWD):
            await stack.enter_async_context(wire(limited, "127.0.0.77"))
        others = [await stack.enter_async_context(wire(limited, "127.0.0.78")) for _ in range(20)]
        for client in others:  # at once, so that every connection to PostgreSQL is needed
            await client.send(request("/v1/feeds/clients?limit=5", TOKEN))
        async with asyncio.timeout(60):
            assert {(await client.answer()).status for client in others} == {200}
    assert psutil.Process(limited.pid).num_fds() < HARD
    lowered = [line for line in limited.log if "server.connections_per_address is" in line]
    assert len(lowered) == 1
    assert not [line for line in limited.log if "Too many open files" in line]


async def test_a_crowd_of_many_addresses_does_too(limited: Running) -> None:
    async with AsyncExitStack() as stack:
        for number in range(CROWD):
            await stack.enter_async_context(wire(limited, f"127.0.1.{number % 200 + 1}"))
        assert await _until_answered(limited, "/live") == {503}
    assert await _until_answered(limited, "/v1/feeds/clients?limit=5") <= {200, 503}


async def _until_answered(service: Running, target: str) -> set[int]:
    """The statuses up to the first 200, or the first answer at all where none is to be had.

    Most of those that are refused at a time are dropped without an answer.
    """
    seen: set[int] = set()
    async with asyncio.timeout(60):
        while 200 not in seen:
            async with wire(service) as client:
                try:
                    await client.send(request(target, TOKEN))
                    seen.add((await client.answer()).status)
                except (ConnectionError, asyncio.IncompleteReadError):
                    await asyncio.sleep(0.05)
                    continue
            if target == "/live":
                break
    return seen


def test_bounds_follow_from_the_limit_and_from_what_the_service_needs() -> None:
    settings = Settings()
    needed = reserve(settings)
    assert needed > 150
    made = bounded(settings, needed + 100)
    assert (made.connections, made.connections_per_address) == (100, 50)
    assert bounded(settings, 1_048_576).connections_per_address == 4_096
    assert bounded(settings, resource.RLIM_INFINITY) == settings.server
    with pytest.raises(TooFewFilesError, match=r"may open 200 files.*ulimit -n"):
        bounded(settings, 200)


def test_too_few_files_stop_the_start_with_a_sentence(world_url: str) -> None:
    few = ("sh", "-c", 'ulimit -n 200; exec "$@"', "sh")
    with (
        pytest.raises(AssertionError, match="a process may open 200 files"),
        serving(world_url, wrapper=few),
    ):
        pass
