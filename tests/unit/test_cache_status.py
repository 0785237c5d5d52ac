"""Cache-Status as RFC 9211 has it, for each outcome of a look into the cache."""

import pytest

from feedsvc.cache.status import PAST_THE_CACHE, CacheStatus, bypassed, missed


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (CacheStatus(None, "memory", 59), "hit; ttl=59; detail=memory"),
        (CacheStatus(None, "away", -7), "hit; ttl=-7; detail=away"),
        (missed("absent", "stored"), "fwd=uri-miss; stored"),
        (missed("expired", "collapsed"), "fwd=stale; collapsed"),
        (missed("invalidated"), "fwd=stale"),
        (missed("mismatch"), "fwd=uri-miss"),
        (bypassed("deaf"), "fwd=bypass; detail=deaf"),
        (bypassed("large"), "fwd=bypass; detail=large"),
        (bypassed("request"), "fwd=request"),
        (PAST_THE_CACHE, "fwd=bypass"),
    ],
)
def test_each_status_has_its_text(status: CacheStatus, text: str) -> None:
    assert str(status) == text
