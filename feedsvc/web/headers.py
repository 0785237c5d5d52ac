"""Headers of a feed's answer."""

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode

from feedsvc.cache.status import CacheStatus
from feedsvc.feeds.page import Page
from feedsvc.feeds.query import FeedQuery
from streams.formats import CSV

_ENTITY_TAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_NOT_IN_A_FILE_NAME: Final = re.compile(r'[\x00-\x1f\x7f"\\/:*?<>|]+')
# A browser may take a percent sign for an encoding; RFC 6266, appendix D.
_NOT_IN_A_PLAIN_NAME: Final = re.compile(r'[\x00-\x1f\x7f"%\\/:*?<>|]+')
_NOT_IN_A_NEXT_LINK: Final = frozenset({"after", "export", "last_event_id", "ticket"})

# nginx would keep a stream back until it has a buffer full; it takes the header for itself.
UNBUFFERED: Final = {"X-Accel-Buffering": "no"}
VARY: Final = "Accept, Accept-Encoding, Authorization"


def of_feed(query: FeedQuery, export: str, status: CacheStatus) -> dict[str, str]:
    """The headers of every response of a feed."""
    headers = {
        "Content-Type": content_type(query),
        "Feed-Export": export,
        "Cache-Control": "private, no-cache",
        "Cache-Status": cache_status(status),
        "Vary": VARY,
    }
    if query.format is CSV:
        headers["Feed-CSV-Guard"] = "on" if query.layout.csv.guard else "off"
        headers["Content-Disposition"] = attachment(f"{query.dataset.filename}.csv")
    return headers


def cache_status(status: CacheStatus) -> str:
    """The value of Cache-Status (RFC 9211): the cache's name, and what became of the request."""
    return f"feedsvc; {status}"


def content_type(query: FeedQuery) -> str:
    """The media type with what its reader must know."""
    if query.format is CSV:
        return f"text/csv; charset=utf-8; header={'present' if query.layout.header else 'absent'}"
    return query.format.media_types[0]


def attachment(filename: str) -> str:
    """A Content-Disposition that every browser reads alike (RFC 6266, appendix D).

    What a file system or a header can't hold becomes `_`; the plain `filename` is ASCII, and
    `filename*` has the name as it is.
    """
    clean = _NOT_IN_A_FILE_NAME.sub("_", filename).strip(" .") or "feed"
    plain = unicodedata.normalize("NFKD", clean).encode("ascii", "ignore").decode()
    # Once more, for the full-width form of a quote has become a quote.
    plain = _NOT_IN_A_PLAIN_NAME.sub("_", plain).strip()
    if not plain or plain.startswith("."):
        plain = f"feed{plain}"
    value = f'attachment; filename="{plain}"'
    if plain != clean:
        value += f"; filename*=UTF-8''{quote(clean.encode('utf-8', 'replace'), safe='')}"
    return value


def entity_tag(query: FeedQuery, page: Page) -> str:
    """A weak validator of a page: the same rows in the same form have the same one.

    Weak (RFC 9110, section 8.8.1), for a framed body also has its age, and the codings of a
    body differ by `Vary` alone.
    """
    form = repr((query.format.name, query.layout, page.more, page.digest))
    return f'W/"{hashlib.blake2b(form.encode(), digest_size=16).hexdigest()}"'


def matches(if_none_match: str | None, tag: str) -> bool:
    """Return whether If-None-Match names the tag, compared weakly (RFC 9110, section 13.1.2)."""
    if if_none_match is None:
        return False
    if if_none_match == tag:  # what a client that has one page sends
        return True
    if if_none_match.strip() == "*":
        return True
    return tag.removeprefix("W/") in _ENTITY_TAG.findall(if_none_match)


def next_page(path: str, given: Mapping[str, str], after: str) -> str:
    """The value of a Link header to the page behind this one (RFC 8288)."""
    kept = {name: value for name, value in given.items() if name not in _NOT_IN_A_NEXT_LINK}
    return f'<{path}?{urlencode({**kept, "after": after}, quote_via=quote)}>; rel="next"'
