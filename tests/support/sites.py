"""Exports without HTTP: a pool of the service's login, and the datasets that it reads."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import asyncpg

from feedsvc.backends.postgres.pool import Pool
from feedsvc.core.principal import Principal
from feedsvc.core.timing import Stages
from feedsvc.datasets.catalog import resolve
from feedsvc.datasets.dataset import declarations
from feedsvc.feeds.export import open_export
from feedsvc.feeds.export_options import ExportOptions
from feedsvc.feeds.query import FeedQuery
from feedsvc.settings import Database, PoolSettings

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from feedsvc.datasets.dataset import Dataset, SourceName

MEMBER: Final = Principal("rosewood", "member", None, 0.0)
CHUNK: Final = 16_384


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    body: bytes
    records: Sequence[bytes]
    after: str | None
    more: bool
    snapshots: int = field(compare=False)
    source: str = field(compare=False)


@dataclass(frozen=True)
class Site:
    """A pool of the service's login, and the datasets that it serves to `who`.

    Ranges of those that come by COPY are read by so many connections.
    """

    pool: Pool
    datasets: Mapping[str, Dataset]
    who: Principal = MEMBER
    ranges: int = 1

    def query(self, name: str, source: SourceName, **given: str) -> FeedQuery:
        """An NDJSON query of the dataset, its source forced."""
        dataset = replace(self.datasets[name], source=source, ranges=self.ranges)
        return FeedQuery.parse({"format": "ndjson", **given}, dataset)

    async def read(self, query: FeedQuery, *, park: random.Random | None = None) -> Exported:
        """The whole export, parked now and then; by the source that its dataset names."""
        stages, form = Stages(), query.format.encoder(query.layout)
        async with open_export(query, self.who, self.pool, ExportOptions(CHUNK), stages) as export:
            made, records = bytearray(), list[bytes]()
            while (part := await export.take()) is not None:
                made += b"".join(form.encode(part))
                records += part.records()
                assert len(part.records()) == part.count
                if park is not None and park.random() < 0.3:
                    await export.park()
            source = stages.said["source"]
            return Exported(
                bytes(made), records, export.after, export.more, export.snapshots, source
            )


@asynccontextmanager
async def sited(url: str, file: Path, size: int = 2) -> AsyncIterator[Site]:
    """A site on this database, as the service's login, with a pool of so many connections."""
    connection = await asyncpg.connect(url)
    datasets, _ = await resolve(connection, declarations(file))
    await connection.close()
    settings = PoolSettings(size=size, acquire_timeout=30, query_timeout=300)
    # On a slow machine a cancel and a ROLLBACK take longer than a second.
    pool = Pool("bulk", settings, Database.model_validate({"url": url, "release_timeout": 60}))
    await pool.open()
    yield Site(pool, datasets)
    await pool.close(1.0)
