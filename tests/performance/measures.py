"""The pairs: what is held against what, and which ratio is wanted.

Times are seconds of a whole download to a client that discards, its process's start included.
"""

import sys
from functools import partial
from itertools import count
from typing import Final

from tests.performance.clients import count_lines, curl, first_byte, psql
from tests.performance.memory import growth
from tests.performance.rival import rival_feed
from tests.performance.scale import table
from tests.performance.table import Line, Target, ratio
from tests.performance.timing import Contender, in_turn, medians
from tests.performance.world import Service, World

_FIRST_BYTES: Final = 30  # requests of each size in a round
_FIRST_BYTES_SECONDS: Final = 10.0  # a round's length, should they be slow
_ROWS: Final = "SELECT {} FROM wedding.clients c WHERE tenant_id = '{}' ORDER BY id"


def against_psql(world: World, service: Service, rounds: int) -> list[Line]:
    """NDJSON and CSV against the same rows by PostgreSQL's own client."""
    return [
        _pair_with_psql(world, service, rounds, "ndjson", "row_to_json(c)", "", Target(1.15)),
        _pair_with_psql(world, service, rounds, "csv", "*", " CSV", Target(1.9)),
    ]


def _pair_with_psql(
    world: World,
    service: Service,
    rounds: int,
    name: str,
    columns: str,
    options: str,
    target: Target,
) -> Line:
    copy = f"COPY ({_ROWS.format(columns, world.tenant)}) TO STDOUT{options}"
    contenders: dict[str, Contender] = {
        name: partial(curl, service.feed("clients", f"format={name}")),
        "psql": partial(psql, world.psql, world.admin_url, copy),
    }
    measured = in_turn(contenders, rounds)
    return ratio(f"{name} : psql{options}", measured, name, "psql", target)


def formats(_world: World, service: Service, rounds: int) -> list[Line]:
    """The other formats and the codings against NDJSON as it is."""
    feeds = {
        "ndjson": service.feed("clients", "format=ndjson"),
        "json": service.feed("clients", "format=json"),
        "sse": service.feed("clients", "format=sse"),
        "ndjson gzip": service.feed("clients", "format=ndjson", "gzip"),
        "ndjson zstd": service.feed("clients", "format=ndjson", "zstd"),
    }
    measured = in_turn({name: partial(curl, feed) for name, feed in feeds.items()}, rounds)
    return [
        ratio(f"{name} : ndjson", measured, name, "ndjson") for name in feeds if name != "ndjson"
    ]


def rival(world: World, service: Service, rounds: int) -> list[Line]:
    """asyncpg, orjson and FastAPI against NDJSON, as many lines from each."""
    ours = service.feed("clients", "format=ndjson")
    with rival_feed(world.admin_url, world.tenant) as theirs:
        for feed in (ours, theirs):
            lines = count_lines(feed)
            assert lines == world.sizes.clients, f"{feed.url} gave {lines} lines"
        contenders: dict[str, Contender] = {
            "rival": partial(curl, theirs),
            "ndjson": partial(curl, ours),
        }
        measured = in_turn(contenders, rounds)
    return [ratio("rival (FastAPI) : ndjson", measured, "rival", "ndjson")]


def first_bytes(world: World, service: Service, rounds: int) -> list[Line]:
    """Until a body's first byte: a feed of many rows against one of few."""
    unseen = count()
    few, many = (f"{rows:,} rows" for rows in (world.sizes.small, world.sizes.huge))

    def ask(rows: int) -> float:
        # No two requests are equal, so there is nothing that a cache could have for one.
        return first_byte(service.feed(table(rows), f"format=ndjson&id.gt=-{next(unseen)}"))

    contenders: dict[str, Contender] = {
        few: partial(ask, world.sizes.small),
        many: partial(ask, world.sizes.huge),
    }
    measured = [
        medians(in_turn(contenders, _FIRST_BYTES, _FIRST_BYTES_SECONDS)) for _ in range(rounds)
    ]
    within = Target(1.2, least=0.8)
    return [ratio(f"first byte, {many} : {few}", measured, many, few, within, "ms")]


def cost_a_row(world: World, service: Service, rounds: int) -> list[Line]:
    """As many rows from each table, so the seconds are in proportion to the cost of one."""
    sizes = world.sizes
    names = {rows: f"{rows:,} rows" for rows in (sizes.middle, sizes.small, sizes.large)}
    contenders: dict[str, Contender] = {
        name: partial(curl, service.feed(table(rows), "format=ndjson"), sizes.large // rows)
        for rows, name in names.items()
    }
    measured = in_turn(contenders, rounds)
    base, flat = names[sizes.middle], Target(1.15, least=0.85)
    return [
        ratio(f"a row of {names[rows]} : of {base}", measured, names[rows], base, flat)
        for rows in (sizes.small, sizes.large)
    ]


def memory(world: World, _service: Service, _rounds: int) -> list[Line]:
    """A large feed's share of memory, each in a service that did nothing before. Linux alone."""
    if sys.platform != "linux":
        return []
    asked = [(name, "identity") for name in ("json", "csv", "ndjson", "sse")]
    asked += [("ndjson", "gzip"), ("ndjson", "zstd")]
    return [_memory(world, name, coding) for name, coding in asked]


def _memory(world: World, name: str, coding: str) -> Line:
    dataset = table(world.sizes.large)
    with world.service() as fresh:
        curl(fresh.feed(dataset, f"format={name}&limit=1", coding))
        feed = fresh.feed(dataset, f"format={name}", coding)
        grown = growth(fresh.running.pid, partial(curl, feed))
    subject = f"memory, {name}" if coding == "identity" else f"memory, {name} {coding}"
    return Line(subject, [grown], f"{world.sizes.large:,} rows", Target(16), "MiB")
