"""The measured world: the demo's clients, the same rows by the thousand and million, a service.

All of it lies in one folder, so that a second run finds it made.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import asyncpg

from feedsvc.commands.demo.embedded import claim_folder, start_postgres
from feedsvc.commands.demo.world import make_triggers, prepare
from tests.performance.clients import Feed
from tests.performance.scale import DEAR, make_tables, table
from tests.support.service import Running, bearer, serving

_SEED: Final = 1
_DATASET: Final = """
[{name}]
relation = "{relation}"
key = ["id"]
tenant = "tenant_id"
client = "id"
pool = "bulk"

source = "{source}"
{more}
[{name}.filters]
id = ["eq", "gt", "gte", "lt", "lte"]
"""
SOURCES: Final = ("projection", "cursor", "copy")
"""Each has a dataset of the clients that is read by it alone, `clients_` and its name."""
RANGES: Final = (1, 2, 3)
"""So many connections read `clients_by_` and the number, and `dear_by_` and the number."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Rows: of the demo's first tenant, and of the tables that differ in size alone."""

    clients: int
    small: int = 10_000
    middle: int = 100_000
    large: int = 1_000_000
    huge: int = 3_000_000

    @property
    def tables(self) -> tuple[int, ...]:
        return self.small, self.middle, self.large, self.huge

    def quick(self) -> "Sizes":
        """A tenth of each."""
        return Sizes(self.clients // 10, *(rows // 10 for rows in self.tables))


@dataclass(frozen=True, slots=True)
class World:
    """A database that is filled in, and what speaks to it. `tenant` has `sizes.clients` clients."""

    admin_url: str
    service_url: str
    tenant: str
    sizes: Sizes
    psql: Path
    postmaster: int
    datasets: Path
    version: str

    @contextmanager
    def service(
        self, settings: Mapping[str, str] | None = None, workers: int = 1
    ) -> Iterator["Service"]:
        """A `feedsvc serve` of its own, as production starts it."""
        with serving(
            self.service_url,
            datasets=self.datasets,
            settings=settings,
            arguments=[f"--workers={workers}"],
        ) as running:
            yield Service(running, bearer(self.tenant))


@dataclass(frozen=True, slots=True)
class Service:
    """A running feedsvc, and who asks it."""

    running: Running
    headers: Mapping[str, str]

    def feed(self, dataset: str, query: str, coding: str = "identity") -> Feed:
        """A feed of it; `query` names at least the format."""
        url = f"{self.running.url}/v1/feeds/{dataset}?{query}"
        return Feed(url, {**self.headers, "Accept-Encoding": coding})


@contextmanager
def prepared(sizes: Sizes, data: Path) -> Iterator[World]:
    """The world in the folder `data`, its PostgreSQL running for as long as the block does.

    Raises EmbeddedError.
    """
    with (
        claim_folder(data) as folder,
        start_postgres(folder) as server,
        TemporaryDirectory(prefix="feedsvc-bench-") as scratch,
    ):
        demo = asyncio.run(prepare(server, sizes.clients, _SEED))
        version = asyncio.run(_fill(demo.admin_url, demo.tenant, sizes))
        datasets = Path(scratch, "datasets.toml")
        datasets.write_text(_declarations(sizes))
        asyncio.run(make_triggers(demo.admin_url, datasets))
        psql = server.cluster.binaries.folder / "psql"
        yield World(
            demo.admin_url,
            demo.service_url,
            demo.tenant,
            sizes,
            psql,
            _postmaster(server.cluster.data),
            datasets,
            version,
        )


def _postmaster(data: Path) -> int:
    """The id of the server's first process (PostgreSQL's documentation, section 66.1)."""
    return int((data / "postmaster.pid").read_text().splitlines()[0])


def _declarations(sizes: Sizes) -> str:
    relations = {table(rows): f"bench.{table(rows)}" for rows in sizes.tables}
    # By one source whatever their size, or it would be the sources that are compared.
    declared = [(name, relation, "cursor", "") for name, relation in relations.items()]
    declared.append(("clients", "wedding.clients", "auto", ""))
    declared += [(f"clients_{source}", "wedding.clients", source, "") for source in SOURCES]
    for number in RANGES:
        more = f"ranges = {number}\n"
        declared.append((f"clients_by_{number}", "wedding.clients", "copy", more))
        more += 'not_null = ["id"]\ncache = false\n'
        declared.append((f"dear_by_{number}", DEAR, "copy", more))
    return "".join(
        _DATASET.format(name=name, relation=relation, source=source, more=more)
        for name, relation, source, more in declared
    )


async def _fill(admin_url: str, tenant: str, sizes: Sizes) -> str:
    """Make the tables, and return which PostgreSQL it is."""
    connection = await asyncpg.connect(admin_url)
    try:
        await make_tables(connection, tenant, sizes.tables, sizes.middle)
        clients = await connection.fetchval(
            "SELECT count(*) FROM wedding.clients WHERE tenant_id = $1", tenant
        )
        assert clients == sizes.clients, f"{tenant} has {clients} clients"
        # Nothing that filling left behind is to be written while something is measured.
        await connection.execute("CHECKPOINT")
        return str(await connection.fetchval("SHOW server_version"))
    finally:
        await connection.close()
