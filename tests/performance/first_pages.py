"""A cached first page of 100 rows against the least that could send the same bytes.

Each contender is one process with 32 connections asking for the page as fast as it comes; the
figure is the seconds that a thousand answers took. The service verifies the token, keeps to the
limits, audits and logs each time; its rivals do nothing but answer.
"""

import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import redis

from feedsvc.commands.demo.embedded import start_valkey
from tests.performance.clients import Feed
from tests.performance.load import requests_per_second
from tests.performance.node import installed, running
from tests.performance.processes import ended, listening
from tests.performance.table import Line, Target, ratio
from tests.performance.timing import Contender, in_turn
from tests.performance.world import Service, World
from tests.support.servers import throw_away_folder
from tests.support.service import REPOSITORY

ROWS: Final = 100
WITHOUT_LIMIT: Final = {
    "FEEDSVC_LIMITS__MEMBER__REQUESTS_PER_SECOND": "1000000",
    "FEEDSVC_LIMITS__MEMBER__BURST": "10000000",
}
"""Settings of a service whose limits no measurement reaches."""
_SECONDS: Final = 3.0
_FASTIFY: Final = Path(__file__).parent / "fastify"
_KEY: Final = "page"


def first_pages(world: World, _service: Service, rounds: int) -> list[Line]:
    """From memory and from Redis, against aiohttp's smallest handler, and fastify with ioredis."""
    with ExitStack() as stack:
        valkey = stack.enter_context(start_valkey(stack.enter_context(throw_away_folder())))
        memory = stack.enter_context(service_with_page(world, {"FEEDSVC_CACHE__SHARED": "false"}))
        shared = stack.enter_context(
            service_with_page(world, {"REDIS_URL": valkey.url, "FEEDSVC_CACHE__MEMORY_BYTES": "0"})
        )
        page = _body(memory)
        assert _body(shared) == page, "two services answer differently"
        contenders: dict[str, Contender] = {
            "memory": partial(seconds_a_page, memory),
            "redis": partial(seconds_a_page, shared),
            "aiohttp": partial(seconds_a_page, stack.enter_context(_smallest(page))),
        }
        if (node := installed(_FASTIFY)) is not None:
            with redis.Redis.from_url(valkey.url) as link:
                link.set(_KEY, page)
            rival = stack.enter_context(_fastify(node, valkey.url))
            assert _body(rival) == page, "fastify answers differently"
            contenders["fastify"] = partial(seconds_a_page, rival)
        measured = in_turn(contenders, rounds)
        pairs = [("memory", "aiohttp", 2.0), ("redis", "aiohttp", 4.0)]
        pairs += [("memory", "fastify", 1.0)] if node is not None else []
        return [
            ratio(f"first page, {name} : {rival}", measured, name, rival, Target(most), "ms")
            for name, rival, most in pairs
        ]


def seconds_a_page(feed: Feed) -> float:
    """For a thousand answers, so that the table's milliseconds are one answer's microseconds."""
    return 1_000 / requests_per_second(feed, _SECONDS) / 1_000


@contextmanager
def service_with_page(world: World, settings: Mapping[str, str]) -> Iterator[Feed]:
    """Its page, once it comes from the cache."""
    with world.service(settings={**settings, **WITHOUT_LIMIT}) as service:
        feed = service.feed("clients", f"limit={ROWS}&format=ndjson")
        for _ in range(50):
            with _opened(feed) as answer:
                if "; hit;" in answer.headers["Cache-Status"]:
                    break
        else:
            raise AssertionError("the page does not come from the cache")
        yield feed


@contextmanager
def _smallest(page: bytes) -> Iterator[Feed]:
    with listening() as (listener, port):
        command = [sys.executable, "-m", "tests.performance.smallest", str(listener.fileno())]
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, pass_fds=(listener.fileno(),)
        )
        assert process.stdin is not None
        with ended(process):
            process.stdin.write(page)
            process.stdin.close()
            yield Feed(f"http://127.0.0.1:{port}/page")


@contextmanager
def _fastify(folder: Path, url: str) -> Iterator[Feed]:
    with running(folder, (url, _KEY)) as base:
        yield Feed(f"{base}/page")


def _body(feed: Feed) -> bytes:
    with _opened(feed) as answer:
        return bytes(answer.read())


def _opened(feed: Feed) -> "urllib.response.addinfourl":
    request = urllib.request.Request(feed.url, headers=dict(feed.headers))
    opened: urllib.response.addinfourl = urllib.request.urlopen(request, timeout=30)
    return opened
