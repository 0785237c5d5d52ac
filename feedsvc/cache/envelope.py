"""A page, what it is looked up by, and the envelope that it travels in."""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import orjson
import zstandard

from feedsvc.access.service_key import MAC_SIZE, Seal
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.datasets.dataset import Dataset
from feedsvc.feeds.page import BETWEEN, Page

_VERSION: Final = b"feedsvc-page-3\n"
_BEGINNING: Final = len(_VERSION) + MAC_SIZE
_COMPRESS_FROM: Final = 1_024  # bytes; below that an envelope's own size decides
_LARGEST: Final = 1 << 28


class EnvelopeError(ValueError):
    """An envelope is damaged, of another release, or holds another page than the one asked for."""


PageKey: TypeAlias = str
"""Everything that the page's records depend on: who asks, and for what. Readable unless long."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A page that may be cached: under what, and what would put it out of date."""

    key: PageKey
    items: tuple[bytes, ...]
    dataset: Dataset
    origin: str = ""
    """The life of the database that the key is of; no page of another one is kept under it."""


def pack(key: PageKey, page: Page, seal: Seal) -> bytes:
    """The page in its envelope, under the service's seal."""
    plain = BETWEEN.join(page.records)
    packed = zstandard.compress(plain, 1) if len(plain) >= _COMPRESS_FROM else plain
    is_smaller = len(packed) < len(plain) * 9 // 10
    body = packed if is_smaller else plain
    head = {
        "key": key,
        "rows": len(page.records),
        "digest": page.digest,
        "last": page.last,
        "more": page.more,
        "snapshot": str(page.snapshot),
        "loaded": page.loaded,
        "cost": page.cost,
        "total": page.total,
        "prefetched": page.prefetched,
        "origin": page.origin,
        "coding": "zstd" if is_smaller else "identity",
    }
    content = orjson.dumps(head) + b"\n" + body
    return b"".join((_VERSION, seal.mac(content), content))


def unpack(key: PageKey, envelope: bytes, seal: Seal) -> Page:
    """The page that the envelope holds. Raises EnvelopeError unless it is the one of this key."""
    try:
        return _unpacked(key, envelope, seal)
    except (ValueError, KeyError, TypeError, zstandard.ZstdError, RecursionError) as error:
        raise EnvelopeError(str(error)) from None


def _unpacked(key: PageKey, envelope: bytes, seal: Seal) -> Page:
    if not envelope.startswith(_VERSION):
        raise EnvelopeError("it is no page of this release")
    content = envelope[_BEGINNING:]
    if not seal.fits(envelope[len(_VERSION) : _BEGINNING], content):
        raise EnvelopeError("it is damaged, or not of this service's making")
    end = content.index(b"\n")
    head: dict[str, Any] = orjson.loads(content[:end])
    if head["key"] != key:
        raise EnvelopeError("it holds another page")
    body = content[end + 1 :]
    if head["coding"] == "zstd":
        if zstandard.frame_content_size(body) > _LARGEST:
            raise EnvelopeError("it is too large")
        body = zstandard.ZstdDecompressor().decompress(body, max_output_size=_LARGEST)
    records = body.split(BETWEEN) if head["rows"] else []
    if len(records) != head["rows"]:
        raise EnvelopeError("it is damaged")
    return Page(
        records=records,
        digest=str(head["digest"]),
        last=head["last"],
        more=head["more"],
        snapshot=Snapshot.parse(head["snapshot"]),
        loaded=float(head["loaded"]),
        cost=float(head["cost"]),
        total=head["total"],
        prefetched=bool(head["prefetched"]),
        origin=str(head["origin"]),
    )
