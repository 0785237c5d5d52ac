"""The rules of the cache: which datasets it covers, and which of their pages may be shown.

They rest on the ledger's: a page is shown only while the change log is followed, and only if it
lacks no change that the log has.
"""

from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.cache.envelope import PageRequest
from feedsvc.cache.items import FollowedFeed
from feedsvc.cache.key import page_key
from feedsvc.cache.ledger import Ledger
from feedsvc.cache.status import Why
from feedsvc.core.principal import Principal
from feedsvc.feeds.page import Page
from feedsvc.feeds.query import FeedQuery

KeptOut: TypeAlias = Literal["triggers", "unsuitable"]
"""The reason for keeping a dataset out: its triggers, or that nothing can report its changes."""


class Coverage:
    """The datasets that are cached, and the database that their pages are of.

    `fingerprints` has one for each dataset (`cache.key.fingerprint`). The rest is found out from
    the database, and changes with it.
    """

    def __init__(self, fingerprints: Mapping[str, str]) -> None:
        self.fingerprints = fingerprints
        self.kept_out: Mapping[str, str] | None = None
        """The datasets that are not cached, each with the reason; None until it is known."""
        self.incompletely_logged: Collection[str] = frozenset()
        """Datasets whose triggers do not log every change, which `migrate triggers` repairs."""
        self.feeds: Mapping[str, FollowedFeed] = {}
        """The datasets as the database logs them."""
        self.origin = ""
        """The identity of the database, and of its life: no page of another one is shown."""

    def reasons(self) -> dict[str, KeptOut]:
        """The reason for keeping each dataset out, in a word."""
        triggers = self.incompletely_logged
        return {n: "triggers" if n in triggers else "unsuitable" for n in self.kept_out or ()}


class PagePolicy:
    """The rules for looking pages up, showing them and keeping them."""

    def __init__(self, ledger: Ledger, coverage: Coverage, *, enabled: bool) -> None:
        self._ledger = ledger
        self.coverage = coverage
        self._enabled = enabled

    @property
    def is_followed(self) -> bool:
        """Return whether the change log is followed; otherwise the cache shows no page."""
        return self._ledger.is_followed

    def request(
        self, query: FeedQuery, principal: Principal, limit: int | None
    ) -> PageRequest | Why:
        """The request for a page, or the reason why the cache has no part in it."""
        dataset, coverage = query.dataset, self.coverage
        if not (self._enabled and dataset.cache):
            return "off"
        if coverage.kept_out is None:
            return "deaf"
        followed = coverage.feeds.get(dataset.name)
        if followed is None or dataset.name in coverage.kept_out:
            return "untracked"
        pinned = dataset.pinned(principal.tenant, principal.client)
        # A narrower tag stands under the tenant's, so it is of use only together with that one.
        narrows = dataset.tenant is None or dataset.tenant.name in pinned
        for condition in query.filters:
            if narrows and condition.op == "eq":
                text = condition.column.canonical(condition.values[0])
                if text is not None:
                    pinned.setdefault(condition.column.name, text)
        fingerprint = coverage.fingerprints[dataset.name]
        items = followed.items(dataset.tags, pinned)
        if items is None:
            return "untracked"
        key = page_key(coverage.origin, fingerprint, principal, query, limit)
        return PageRequest(key, items, dataset, coverage.origin)

    def fault(self, wanted: PageRequest, page: Page) -> Why | None:
        """The reason for which the page may not be shown as it is."""
        if not self._ledger.is_fresh(page.snapshot, wanted.items):
            return "invalidated" if self._ledger.is_followed else "deaf"
        return "expired" if page.age() > wanted.dataset.fresh else None

    def is_current(self, wanted: PageRequest, page: Page) -> bool:
        """Return whether the page lacks no change, however old it is."""
        return self._ledger.is_fresh(page.snapshot, wanted.items)

    def may_be_kept(self, wanted: PageRequest, page: Page) -> bool:
        """Return whether the page was read from the database whose changes are followed."""
        return self._ledger.is_followed and wanted.origin == self.coverage.origin == page.origin

    def may_be_shown_stale(self, wanted: PageRequest, page: Page) -> bool:
        """Return whether the page may be shown while a new one is read, or can't be read."""
        bounds = wanted.dataset
        if not bounds.stale or page.age() > bounds.fresh + bounds.stale:
            return False
        return self._ledger.has_no_newer_change(page.snapshot, wanted.items)

    def unchanged(self, wanted: PageRequest, page: Page, snapshot: Snapshot) -> bool:
        """Return whether this later snapshot would give the same page."""
        return self._ledger.unchanged(page.snapshot, snapshot, wanted.items)
