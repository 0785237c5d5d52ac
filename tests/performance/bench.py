"""`make bench`: how fast it is against what else there is, in ratios, for times don't travel.

Exit 1 if a target is missed, 2 if nothing could be measured.
"""

import argparse
import os
import platform
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from feedsvc.commands.demo.embedded import EmbeddedError, cache_folder
from tests.performance import index_phases, measures
from tests.performance.advising import advice
from tests.performance.deltas import deltas
from tests.performance.first_pages import first_pages
from tests.performance.freshness import freshness
from tests.performance.live import live_fan_out, live_memory, live_peers
from tests.performance.live_load import live_load
from tests.performance.observing import observing
from tests.performance.peers import peers, rival
from tests.performance.replay import replay
from tests.performance.table import Line, rendered
from tests.performance.world import Service, Sizes, World, prepared
from tests.performance.writers import writers

Measure: TypeAlias = Callable[[World, Service, int], list[Line]]

_MEASURES: Final[tuple[Measure, ...]] = (
    measures.against_psql,
    measures.formats,
    measures.processor,
    measures.at_once,
    measures.ranges,
    rival,
    measures.first_bytes,
    measures.cost_a_row,
    first_pages,
    freshness,
    deltas,
    replay,
    observing,
    advice,
    writers,
    measures.memory,
    live_fan_out,
    live_memory,
    live_load,
)
_PEERS: Final[tuple[Measure, ...]] = (peers, live_peers)
_BY_NAME: Final = {measure.__name__: measure for measure in (*_MEASURES, *_PEERS)}
_QUICK_ROUNDS: Final = 2


def main() -> int:
    """Measures, prints the table, and answers the exit code."""
    options = _options()
    if options.phases:
        return index_phases.main(options.rows)
    if shutil.which("curl") is None:
        sys.exit("bench: curl is needed, for it is the client")
    sizes = Sizes(options.rows).quick() if options.quick else Sizes(options.rows)
    rounds = _QUICK_ROUNDS if options.quick else options.rounds
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that servers end
    data = options.data or cache_folder() / f"bench-{sizes.clients}"
    try:
        wanted = _PEERS if options.peers else _MEASURES
        if options.only:
            wanted = tuple(_BY_NAME[name] for name in options.only)
        lines, version = _measured(wanted, sizes, rounds, data)
    except EmbeddedError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 2
    print(f"\n{rendered(lines)}\n\n{_conditions(sizes, rounds, version)}")
    if options.quick:
        print("quick: the targets are meant for ten times as many rows")
    return int(any(line.is_over for line in lines))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, two rounds")
    parser.add_argument("--peers", action="store_true", help="against other services alone")
    parser.add_argument(
        "--phases", action="store_true", help="the demo's index revisions beside writers, alone"
    )
    parser.add_argument(
        "--only", action="append", choices=_BY_NAME, help="one of the measures; may be repeated"
    )
    parser.add_argument("--rows", type=int, default=300_000, help="clients of the first tenant")
    parser.add_argument("--rounds", type=int, default=5, help="times that each pair is measured")
    parser.add_argument("--data", type=Path, help="where the data is kept from run to run")
    return parser.parse_args()


def _measured(
    wanted: Sequence[Measure], sizes: Sizes, rounds: int, data: Path
) -> tuple[list[Line], str]:
    """The table's lines, and the version of the PostgreSQL that they were measured on."""
    _tell(f"preparing {data}")
    lines: list[Line] = []
    with prepared(sizes, data) as world, world.service() as service:
        for measure in wanted:
            _tell(measure.__name__.replace("_", " "))
            lines += measure(world, service, rounds)
        return lines, world.version


def _conditions(sizes: Sizes, rounds: int, version: str) -> str:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{sizes.clients:,} clients where no number of rows is given, {rounds} rounds in turn;"
        f" medians of the rounds' ratios\n{os.cpu_count()} cores, {platform.platform()}, Python"
        f" {platform.python_version()}, PostgreSQL {version}; load {load} at the end"
    )


def _tell(what: str) -> None:
    sys.stderr.write(f"bench: {what}\n")


if __name__ == "__main__":
    sys.exit(main())
