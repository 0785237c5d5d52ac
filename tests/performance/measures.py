"""The pairs: what is held against what, and which ratio is wanted.

Times are seconds of a whole download to a client that discards, its process's start included.
"""

import sys
from functools import partial
from itertools import count
from typing import Final, NamedTuple

from tests.performance.clients import curl, first_byte, psql, together
from tests.performance.memory import growth
from tests.performance.processor import seconds_of
from tests.performance.scale import table
from tests.performance.table import Line, Target, ratio
from tests.performance.timing import Contender, in_turn, medians
from tests.performance.world import RANGES, SOURCES, Service, World

_FIRST_BYTES: Final = 30  # requests of each size in a round
_FIRST_BYTES_SECONDS: Final = 10.0  # a round's length, should they be slow
_AT_ONCE: Final = 8
_ROWS: Final = "SELECT {} FROM wedding.clients c WHERE tenant_id = '{}' ORDER BY id"


class _Psql(NamedTuple):
    """psql's options for a format."""

    columns: str
    options: str


_PSQL: Final = {"ndjson": _Psql("row_to_json(c)", ""), "csv": _Psql("*", " CSV")}


def against_psql(world: World, service: Service, rounds: int) -> list[Line]:
    """NDJSON and CSV by each source against the same rows by PostgreSQL's own client."""
    most = {"ndjson": (1.15, 0.55, 0.35), "csv": (1.9, 1.1, 0.7)}
    lines: list[Line] = []
    for form, targets in most.items():
        contenders: dict[str, Contender] = {
            source: partial(curl, service.feed(f"clients_{source}", f"format={form}"))
            for source in SOURCES
        }
        options = _PSQL[form].options
        contenders["psql"] = partial(psql, world.psql, world.admin_url, copy_by_psql(world, form))
        measured = in_turn(contenders, rounds)
        lines += [
            ratio(f"{form} by {source} : psql{options}", measured, source, "psql", Target(target))
            for source, target in zip(SOURCES, targets, strict=True)
        ]
    return lines


def copy_by_psql(world: World, form: str) -> str:
    """The statement that gives psql the same rows."""
    asked = _PSQL[form]
    return f"COPY ({_ROWS.format(asked.columns, world.tenant)}) TO STDOUT{asked.options}"


def formats(_world: World, service: Service, rounds: int) -> list[Line]:
    """The other formats and the codings against NDJSON as it is."""
    most = {"json": 1.05, "sse": 1.15, "ndjson gzip": 1.25, "ndjson zstd": 1.25}
    feeds = {
        "ndjson": service.feed("clients", "format=ndjson"),
        "json": service.feed("clients", "format=json"),
        "sse": service.feed("clients", "format=sse"),
        "ndjson gzip": service.feed("clients", "format=ndjson", "gzip"),
        "ndjson zstd": service.feed("clients", "format=ndjson", "zstd"),
    }
    measured = in_turn({name: partial(curl, feed) for name, feed in feeds.items()}, rounds)
    return [
        ratio(f"{name} : ndjson", measured, name, "ndjson", Target(target))
        for name, target in most.items()
    ]


def ranges(_world: World, service: Service, rounds: int) -> list[Line]:
    """Several connections against one on the same export, of plain rows and of dear ones."""
    lines: list[Line] = []
    for rows, most in (("clients", 1.1), ("dear", 0.95)):
        contenders: dict[str, Contender] = {
            f"{number}": partial(curl, service.feed(f"{rows}_by_{number}", "format=ndjson"))
            for number in RANGES
        }
        measured = in_turn(contenders, rounds)
        lines += [
            ratio(f"{rows} by {number} connections : 1", measured, f"{number}", "1", Target(most))
            for number in RANGES[1:]
        ]
    return lines


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


def processor(world: World, service: Service, rounds: int) -> list[Line]:
    """Seconds of processor that an export costs the service and PostgreSQL together."""
    parts = (service.running.pid, world.postmaster)
    contenders: dict[str, Contender] = {
        source: partial(seconds_of, parts, partial(curl, service.feed(dataset, "format=ndjson")))
        for source in SOURCES
        for dataset in [f"clients_{source}"]
    }
    measured = in_turn(contenders, rounds)
    return [
        ratio(f"CPU by {source} : by projection", measured, source, "projection", Target(most))
        for source, most in (("cursor", 0.6), ("copy", 0.45))
    ]


def at_once(world: World, _service: Service, rounds: int) -> list[Line]:
    """Eight exports at once on two workers against eight psql at once, until the last is done."""
    with world.service({"FEEDSVC_POOLS__BULK__SIZE": str(_AT_ONCE)}, workers=2) as service:
        copy = copy_by_psql(world, "ndjson")
        contenders: dict[str, Contender] = {
            source: partial(
                together,
                _AT_ONCE,
                partial(curl, service.feed(f"clients_{source}", "format=ndjson")),
            )
            for source in ("cursor", "copy")
        }
        contenders["psql"] = partial(
            together, _AT_ONCE, partial(psql, world.psql, world.admin_url, copy)
        )
        measured = in_turn(contenders, rounds)
    return [
        ratio(f"8 at once by {source} : 8 psql", measured, source, "psql", Target(most))
        for source, most in (("cursor", 1.0), ("copy", 0.7))
    ]


def memory(world: World, _service: Service, _rounds: int) -> list[Line]:
    """A large feed's share of memory, each in a service that did nothing before. Linux alone."""
    if sys.platform != "linux":
        return []
    asked = [(name, "identity") for name in ("json", "csv", "ndjson", "sse")]
    asked += [("ndjson", "gzip"), ("ndjson", "zstd")]
    lines = [_memory(world, name, coding, world.sizes.large) for name, coding in asked]
    return [*lines, _memory(world, "ndjson", "identity", world.sizes.huge)]


def _memory(world: World, name: str, coding: str, rows: int) -> Line:
    dataset = table(rows)
    with world.service() as fresh:
        curl(fresh.feed(dataset, f"format={name}&limit=1", coding))
        feed = fresh.feed(dataset, f"format={name}", coding)
        grown = growth(fresh.running.pid, partial(curl, feed))
    subject = f"memory, {name}" if coding == "identity" else f"memory, {name} {coding}"
    return Line(subject, [grown], f"{rows:,} rows", Target(16), "MiB")
