"""The rules of the cache: which datasets it covers, and which of their pages may be shown.

They rest on the ledger's: a page is shown only while PostgreSQL reports changes, and only if it
lacks none of them.
"""

from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.cache.envelope import PageRequest
from feedsvc.cache.key import page_key
from feedsvc.cache.ledger import Ledger
from feedsvc.cache.status import Why
from feedsvc.core.principal import Principal
from feedsvc.datasets.tags import lookup_items
from feedsvc.feeds.page import Page
from feedsvc.feeds.query import FeedQuery

KeptOut: TypeAlias = Literal["triggers", "unsuitable"]
"""Why a dataset is kept out: its triggers, or because nothing can tell of its changes."""


class Coverage:
    """The datasets that are cached, and the database that their pages are of.

    `fingerprints` has one for each dataset (`cache.key.fingerprint`). The rest is found out from
    the database, and changes with it.
    """

    def __init__(self, fingerprints: Mapping[str, str]) -> None:
        self.fingerprints = fingerprints
        self.kept_out: Mapping[str, str] | None = None
        """The datasets that are not cached, each with the reason; None until it is known."""
        self.untold: Collection[str] = frozenset()
        """Datasets whose triggers do not report every change, which `migrate triggers` repairs."""
        self.origin = ""
        """The identity of the database, and of its life: no page of another one is shown."""

    def reasons(self) -> dict[str, KeptOut]:
        """Why each dataset that is kept out is, in a word."""
        untold = self.untold
        return {n: "triggers" if n in untold else "unsuitable" for n in self.kept_out or ()}


class PagePolicy:
    """The rules for looking pages up, showing them and keeping them."""

    def __init__(self, ledger: Ledger, coverage: Coverage, *, enabled: bool) -> None:
        self._ledger = ledger
        self.coverage = coverage
        self._enabled = enabled

    @property
    def listening(self) -> bool:
        """Whether PostgreSQL reports changes, without which no page is shown from the cache."""
        return self._ledger.listening

    def request(
        self, query: FeedQuery, principal: Principal, limit: int | None
    ) -> PageRequest | Why:
        """The request for a page, or the reason why the cache has no part in it."""
        dataset, coverage = query.dataset, self.coverage
        if not (self._enabled and dataset.cache):
            return "off"
        if coverage.kept_out is None:
            return "deaf"
        if dataset.name in coverage.kept_out:
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
        key = page_key(coverage.origin, fingerprint, principal, query, limit)
        return PageRequest(key, lookup_items(dataset.tags, pinned), dataset, coverage.origin)

    def fault(self, wanted: PageRequest, page: Page) -> Why | None:
        """Why the page may not be shown as it is."""
        if not self._ledger.is_fresh(page.snapshot, wanted.items):
            return "invalidated" if self._ledger.listening else "deaf"
        return "expired" if page.age() > wanted.dataset.fresh else None

    def is_current(self, wanted: PageRequest, page: Page) -> bool:
        """Whether the page lacks no change, however old it is."""
        return self._ledger.is_fresh(page.snapshot, wanted.items)

    def may_be_kept(self, wanted: PageRequest, page: Page) -> bool:
        """Whether the reported changes are of the database that the page was read from."""
        return self._ledger.listening and wanted.origin == self.coverage.origin == page.origin

    def may_be_shown_stale(self, wanted: PageRequest, page: Page) -> bool:
        """Whether the page may be shown while a new one is read, or can't be read."""
        bounds = wanted.dataset
        if not bounds.stale or page.age() > bounds.fresh + bounds.stale:
            return False
        if self._ledger.listening:
            return self._ledger.is_fresh(page.snapshot, wanted.items)
        return self._ledger.has_no_newer_change(page.snapshot, wanted.items)

    def unchanged(self, wanted: PageRequest, page: Page, snapshot: Snapshot) -> bool:
        """Whether the page is as this later snapshot would have it, all changes being reported."""
        return self._ledger.unchanged(page.snapshot, snapshot, wanted.items)
