"""The cache's figures for Prometheus."""

from collections.abc import Sequence
from typing import Final

from feedsvc.core.events import CacheChange, CacheLoad, CacheLookup, CachePrefetch, CachePut
from feedsvc.operations.metrics import declarations as d
from feedsvc.operations.metrics.cells import Cells, Count, add_to, each

_WHY: Final = (
    "absent", "expired", "invalidated", "mismatch", "deaf", "untracked", "off", "request", "large",
)  # fmt: skip


class CacheCells:
    """The cache's figures."""

    def __init__(self, cells: Cells, datasets: Sequence[str]) -> None:
        self._lookups = {
            (dataset, outcome, tier): cells.count(d.CACHE_LOOKUPS, dataset, outcome, tier)
            for dataset in datasets
            for outcome in d.LOOKUPS
            for tier in d.TIERS
        }
        self._misses = each(cells.count, d.CACHE_MISSES, (), _WHY)
        self._loads = each(cells.buckets, d.CACHE_LOAD_SECONDS, (), datasets)
        self._plain = {name: cells.count(d.CACHE_PUT_BYTES, name, "plain") for name in datasets}
        self._packed = {name: cells.count(d.CACHE_PUT_BYTES, name, "packed") for name in datasets}
        self._changes = each(cells.count, d.CACHE_INVALIDATIONS, (), datasets)
        self._prefetches = {
            name: each(cells.count, d.CACHE_PREFETCHES, (name,), d.PREFETCHES) for name in datasets
        }

    def tracked(self) -> dict[tuple[str, ...], Sequence[Count]]:
        """The lookups that the tracker reports by minute, by its keys."""
        found: dict[tuple[str, ...], list[Count]] = {}
        for (dataset, outcome, tier), count in self._lookups.items():
            of_hits = "redis" if tier == "redis" else "memory"
            key = ("cache", dataset, of_hits if outcome == "hit" else outcome)
            found.setdefault(key, []).append(count)
        return {**found}

    def looked_up(self, lookup: CacheLookup) -> None:
        """Count a lookup."""
        dataset, outcome, tier, why, _ = lookup
        self._lookups[dataset, outcome, tier or "none"].value += 1
        if why is not None and why in self._misses:
            self._misses[why].value += 1

    def loaded(self, load: CacheLoad) -> None:
        """Count a page that was read."""
        add_to(self._loads[load.dataset], load.seconds)

    def put(self, put: CachePut) -> None:
        """Count a page that was put into Redis."""
        self._plain[put.dataset].value += put.size
        self._packed[put.dataset].value += put.packed

    def changed(self, change: CacheChange) -> None:
        """Count the transactions that changed a dataset."""
        self._changes[change.dataset].value += change.transactions

    def prefetched(self, prefetch: CachePrefetch) -> None:
        """Count a page that was read ahead."""
        self._prefetches[prefetch.dataset][prefetch.outcome].value += 1
