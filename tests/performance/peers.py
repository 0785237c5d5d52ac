"""NDJSON against the obvious ways to send rows as they come, as many lines from each."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tests.performance.clients import Feed, count_lines, curl
from tests.performance.node import installed, running
from tests.performance.rival import rival_feed
from tests.performance.table import Line, ratio
from tests.performance.timing import Contender, in_turn
from tests.performance.world import SOURCES, Service, World

_FASTIFY: Final = Path(__file__).parent / "fastify_rows"


def rival(world: World, service: Service, rounds: int) -> list[Line]:
    """FastAPI with asyncpg and orjson."""
    with rival_feed(world.admin_url, world.tenant) as theirs:
        feeds = {"rival": theirs, "ndjson": service.feed("clients", "format=ndjson")}
        measured = in_turn(_checked(world, feeds), rounds)
    return [ratio("rival (FastAPI) : ndjson", measured, "rival", "ndjson")]


def peers(world: World, service: Service, rounds: int) -> list[Line]:
    """FastAPI, and fastify with pg-query-stream, against each source."""
    with ExitStack() as stack:
        theirs = {"FastAPI": stack.enter_context(rival_feed(world.admin_url, world.tenant))}
        if (folder := installed(_FASTIFY)) is not None:
            theirs["fastify"] = stack.enter_context(_fastify(folder, world))
        ours = {name: service.feed(f"clients_{name}", "format=ndjson") for name in SOURCES}
        measured = in_turn(_checked(world, {**theirs, **ours}), rounds)
    return [
        ratio(f"{peer} : {source}", measured, peer, source) for peer in theirs for source in SOURCES
    ]


def _checked(world: World, feeds: dict[str, Feed]) -> dict[str, Contender]:
    """Downloads of feeds that give as many lines as there are clients."""
    for feed in feeds.values():
        lines = count_lines(feed)
        assert lines == world.sizes.clients, f"{feed.url} gave {lines} lines"
    return {name: partial(curl, feed) for name, feed in feeds.items()}


@contextmanager
def _fastify(folder: Path, world: World) -> Iterator[Feed]:
    with running(folder, (world.admin_url,)) as base:
        yield Feed(f"{base}/clients?tenant={world.tenant}")
