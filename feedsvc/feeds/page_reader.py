"""One page, read from PostgreSQL."""

from feedsvc.backends.postgres.pool import Pool
from feedsvc.core.principal import Principal
from feedsvc.core.timing import Stages
from feedsvc.feeds.export import Export, open_export
from feedsvc.feeds.export_options import ExportOptions
from feedsvc.feeds.page import Page
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.sources.projection import ProjectedCursor
from feedsvc.feeds.sources.source import Batch
from feedsvc.settings import Streams


async def read_page(
    query: FeedQuery, principal: Principal, pool: Pool, bounds: Streams, stages: Stages
) -> Page | None:
    """The page. None where it grew too large to be one. Raises Problem."""
    async with open_export(query, principal, pool, page_options(bounds), stages) as export:
        begun: list[Batch] = []
        if not await collect(export, begun, bounds.page_bytes):
            return None
        return page_of(export, begun)


def page_options(bounds: Streams) -> ExportOptions:
    """The options for a page: record by record, for that is how it is kept."""
    return ExportOptions(bounds.chunk_bytes, source_factory=ProjectedCursor)


async def collect(export: Export, parts: list[Batch], most_bytes: int) -> bool:
    """Read an export into the list; false where it grew too large and has more to come."""
    size = 0
    while size <= most_bytes:
        taken = await export.take()
        if taken is None:
            return True
        parts.append(taken)
        size += len(taken.body)
    return False


def page_of(export: Export, begun: list[Batch]) -> Page:
    """The collected rows as a page."""
    return export.page([record for part in begun for record in part.records()])
