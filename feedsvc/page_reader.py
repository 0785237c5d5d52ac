"""One page, read from PostgreSQL."""

from feedsvc.auth.principal import Principal
from feedsvc.cache.page import Page
from feedsvc.export import Course, Export, open_export
from feedsvc.pools import Pool
from feedsvc.query import FeedQuery
from feedsvc.settings import Streams
from feedsvc.timing import Stages
from streams.frames import Rows


async def read_page(
    query: FeedQuery, principal: Principal, pool: Pool, bounds: Streams, stages: Stages
) -> Page | None:
    """The page. None where it grew too large to be one. Raises Problem."""
    async with open_export(query, principal, pool, Course(bounds.chunk_bytes), stages) as export:
        begun: list[Rows] = []
        if not await collect(export, begun, bounds.page_bytes):
            return None
        return page_of(export, begun)


async def collect(export: Export, rows: list[Rows], most_bytes: int) -> bool:
    """Reads an export into the list. False where it grew too large and has more to come."""
    size = 0
    while size <= most_bytes:
        taken = await export.take()
        if taken is None:
            return True
        rows.append(taken)
        size += sum(map(len, taken.records))
    return False


def page_of(export: Export, begun: list[Rows]) -> Page:
    """What was collected, as a page."""
    return export.page([record for rows in begun for record in rows.records])
