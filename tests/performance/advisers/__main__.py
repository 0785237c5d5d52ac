"""Print the tables of docs/advice.md that set other advisers beside ours."""

import argparse
import asyncio
from collections.abc import Mapping
from typing import Final

from tests.performance.advisers.comparison import ADVISERS, Outcome, beaten, outcomes
from tests.performance.advisers.subjects import foreign, seeded
from tests.support.foreign_workloads import SCHEMAS
from tests.support.servers import shared_postgres

_FIGURES: Final = "indexes · KiB · cost of all queries · "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="thirds that are dropped (10)")
    seeds = parser.parse_args().seeds
    with shared_postgres() as url:
        asyncio.run(_tables(url, seeds))


async def _tables(url: str, seeds: int) -> None:
    better: dict[str, list[str]] = {}
    print(f"{_FIGURES}queries that cost over a fifth more than before\n")
    _head("seed")
    for seed in range(seeds + 1):
        name = str(seed or "nothing dropped")
        async with seeded(url, seed) as (subject, before):
            found = await outcomes(subject)
        _row(name, found, before)
        for each in beaten(found):
            better.setdefault(each, []).append(name)
    print(f"\n{_FIGURES}queries that cost over a fifth more than with the best of these\n")
    _head("schema")
    for name in SCHEMAS:
        async with foreign(url, name) as subject:
            found = await outcomes(subject)
        costs = [each.costs for each in found.values()]
        _row(name, found, {query: min(each[query] for each in costs) for query in costs[0]})
        for each in beaten(found):
            better.setdefault(each, []).append(name)
    print("\nCheaper by over a fifth with another's indexes:\n")
    for sentence, names in better.items():
        print(f"- {sentence} ({', '.join(names)})")


def _head(subject: str) -> None:
    cells = [subject, *ADVISERS]
    print(f"| {' | '.join(cells)} |\n|{' --- |' * len(cells)}")


def _row(name: str, found: Mapping[str, Outcome], before: Mapping[str, float]) -> None:
    cells = (
        f"{each.indexes} · {each.kib:,} · {each.total:,.0f} · {len(each.dearer(before))}"
        for each in found.values()
    )
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
