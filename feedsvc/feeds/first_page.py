"""The page that an export goes on from, and its verification."""

import asyncio

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.feeds.export_options import Verify
from feedsvc.feeds.page import Page
from feedsvc.feeds.transaction import Moment


class FirstPage:
    """A page whose rows are sent already, verified against the snapshot of the rows behind it."""

    def __init__(self, page: Page, verify: Verify | None) -> None:
        self.page = page
        self.snapshots = 1
        """Snapshots that it adds to the export's: none once it is verified."""
        self._verify = verify
        self._verifying: asyncio.Task[bool] | None = None

    def begin(self, moment: Moment) -> None:
        """Begin to find out whether the page is as this later snapshot would have it."""
        # Of another database, or another life of it, transaction numbers prove nothing.
        if self._verify is not None and self.page.origin == moment.origin:
            verifying = self._verify(self.page, Snapshot.parse(moment.snapshot))
            self._verifying = asyncio.create_task(verifying)

    async def finish(self) -> None:
        """Wait for the result. A verified page is a part of the snapshot behind it."""
        verifying, self._verifying = self._verifying, None
        if verifying is not None and await verifying:
            self.snapshots = 0

    def cancel(self) -> None:
        """Give up an unfinished verification."""
        verifying, self._verifying = self._verifying, None
        if verifying is not None:
            verifying.cancel()
