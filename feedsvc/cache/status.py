"""The outcome of a look into the cache, and how Cache-Status shows it."""

from typing import Literal, NamedTuple, TypeAlias

from feedsvc.cache.memory import CacheEntry

Why: TypeAlias = Literal[
    "absent", "expired", "invalidated", "mismatch", "deaf", "untracked", "off", "request", "large"
]
"""The reason why a page was not shown from the cache."""
CacheTier: TypeAlias = Literal["memory", "redis"]


class CacheStatus(NamedTuple):
    """A value of Cache-Status behind the cache's name (RFC 9211): a hit, or why it was none.

    `ttl` are the seconds for which a hit is fresh, negative for a stale one. A page that
    was read is `stored`, or `collapsed` if another request read it.
    """

    fwd: Literal["uri-miss", "stale", "bypass", "request"] | None
    detail: str | None = None
    ttl: int | None = None
    stored: Literal["stored", "collapsed"] | None = None

    def __str__(self) -> str:
        """The parameters in the order of RFC 9211, joined with `; `."""
        if self.fwd is None:
            return f"hit; ttl={self.ttl}; detail={self.detail}"
        text = f"fwd={self.fwd}"
        if self.stored is not None:
            text += f"; {self.stored}"
        return text if self.detail is None else f"{text}; detail={self.detail}"


PAST_THE_CACHE = CacheStatus("bypass")


def bypassed(why: Why) -> CacheStatus:
    """The status of an answer in which the cache has no part."""
    return CacheStatus("request") if why == "request" else CacheStatus("bypass", why)


def missed(why: Why, stored: Literal["stored", "collapsed"] | None = None) -> CacheStatus:
    """The status of an answer that was read, for the cache had no page, or one that is too old."""
    fwd: Literal["stale", "uri-miss"]
    fwd = "stale" if why in ("expired", "invalidated") else "uri-miss"
    return CacheStatus(fwd, stored=stored)


class CacheHit(NamedTuple):
    """A page to show. `tier` is where it was found, None where it had to be read."""

    held: CacheEntry
    status: CacheStatus
    tier: CacheTier | None


class Lookup(NamedTuple):
    """A page for an answer, if there is one, and the cache's part in that."""

    entry: CacheEntry | None
    status: CacheStatus
