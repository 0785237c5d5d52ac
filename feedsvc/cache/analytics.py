"""Figures of the cache, counted from events, by dataset and tier."""

import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from feedsvc.cache.pages import Pages
from feedsvc.core.events import (
    CacheChange,
    CacheLoad,
    CacheLookup,
    CachePrefetch,
    CachePut,
    Observers,
)


@dataclass(slots=True)
class _Counts:
    hits: Counter[str] = field(default_factory=Counter)
    misses: Counter[str] = field(default_factory=Counter)
    bypassed: Counter[str] = field(default_factory=Counter)
    stale: int = 0
    collapsed: int = 0
    loads: int = 0
    load_seconds: float = 0.0
    longest_load: float = 0.0
    loaded_rows: int = 0
    loaded_bytes: int = 0
    packed_bytes: int = 0
    bytes_before_packing: int = 0
    invalidations: int = 0
    prefetches: Counter[str] = field(default_factory=Counter)


class CacheAnalytics:
    """Counts since the worker's start."""

    def __init__(self, datasets: Iterable[str]) -> None:
        self._since = time.time()
        self._counts = {name: _Counts() for name in datasets}

    def observe(self, observers: Observers) -> None:
        """Count the events of the cache from now on."""
        observers.add(CacheLookup, self._looked_up)
        observers.add(CacheLoad, self._loaded)
        observers.add(CachePut, self._put)
        observers.add(CacheChange, self._changed)
        observers.add(CachePrefetch, self._prefetched)

    def report(self, pages: Pages) -> dict[str, Any]:
        """The figures as plain values; times are milliseconds."""
        kept_out = pages.kept_out or {}
        return {
            "worker": os.getpid(),
            "since": round(self._since, 3),
            "log_read": pages.is_followed,
            "memory": {
                "pages": len(pages.memory),
                "bytes": pages.memory.size,
                "most_bytes": pages.memory.most,
                "evictions": pages.memory.evicted,
            },
            "redis": pages.shared_state,
            "redis_refusals": pages.shared_refusals,
            "datasets": {
                name: {**_figures(counts), "kept_out": kept_out.get(name)}
                for name, counts in self._counts.items()
            },
        }

    def _looked_up(self, lookup: CacheLookup) -> None:
        counts = self._counts[lookup.dataset]
        why = lookup.why or "absent"
        match lookup.outcome:
            case "hit":
                counts.hits[lookup.tier or "memory"] += 1
            case "stale":
                counts.stale += 1
            case "bypass":
                counts.bypassed[why] += 1
            case "miss":
                counts.misses[why] += 1
                counts.collapsed += lookup.collapsed

    def _put(self, put: CachePut) -> None:
        self._counts[put.dataset].bytes_before_packing += put.size
        self._counts[put.dataset].packed_bytes += put.packed

    def _changed(self, change: CacheChange) -> None:
        self._counts[change.dataset].invalidations += change.transactions

    def _prefetched(self, prefetch: CachePrefetch) -> None:
        self._counts[prefetch.dataset].prefetches[prefetch.outcome] += 1

    def _loaded(self, load: CacheLoad) -> None:
        counts = self._counts[load.dataset]
        counts.loads += 1
        counts.load_seconds += load.seconds
        counts.longest_load = max(counts.longest_load, load.seconds)
        counts.loaded_rows += load.rows
        counts.loaded_bytes += load.size


def _figures(counts: _Counts) -> dict[str, Any]:
    hits, misses = counts.hits.total(), counts.misses.total()
    looked = hits + misses + counts.stale
    packed = counts.packed_bytes
    return {
        "hits": {"memory": counts.hits["memory"], "redis": counts.hits["redis"]},
        "stale": counts.stale,
        "misses": dict(counts.misses),
        "bypassed": dict(counts.bypassed),
        "collapsed": counts.collapsed,
        "hit_ratio": round((hits + counts.stale) / looked, 4) if looked else None,
        "loads": {
            "count": counts.loads,
            "mean_ms": round(counts.load_seconds * 1e3 / counts.loads, 3) if counts.loads else None,
            "longest_ms": round(counts.longest_load * 1e3, 3),
            "rows": counts.loaded_rows,
            "bytes": counts.loaded_bytes,
        },
        "compression_ratio": round(counts.bytes_before_packing / packed, 3) if packed else None,
        "invalidations": counts.invalidations,
        "prefetches": {name: counts.prefetches[name] for name in ("read", "used", "wasted")},
    }
