"""The rows that an export begins with, collected on their way to the client."""

from collections.abc import Callable, Sequence

from feedsvc.feeds.page import Page
from feedsvc.feeds.sources.source import Batch


class PageCollector:
    """Collects an export's first rows, and passes them on as a page for the cache.

    A page has `most_rows` rows, or fewer where they come to `most_bytes` bytes or the export ends.
    """

    def __init__(self, most_rows: int, most_bytes: int, on_page: Callable[[Page], None]) -> None:
        self.rows_left = most_rows
        self._bytes_left = most_bytes
        self._on_page = on_page
        self._records: list[bytes] = []

    def add(
        self, batch: Batch | None, make_page: Callable[[Sequence[bytes]], Page], *, is_last: bool
    ) -> bool:
        """Add the next rows; False once the page is complete and was passed on."""
        if batch is not None:
            self._records += batch.records()
            self.rows_left -= batch.count
            self._bytes_left -= len(batch.body)
        if not is_last and self.rows_left > 0 and self._bytes_left > 0:
            return True
        self._on_page(make_page(self._records))
        return False
