"""The tier in this process's memory: bounded in bytes, the least recently used goes first."""

from collections.abc import Hashable
from typing import Final, NamedTuple

from cachetools import LRUCache

from feedsvc.cache.envelope import PageKey
from feedsvc.feeds.page import Page

_A_RECORD: Final = 48  # bytes that Python needs for each record beside its own
_A_PAGE: Final = 1_024
_A_HEAD: Final = 2_048  # with the address that it answers
_REQUESTS: Final = 4  # the part of the whole that is for what requests mean, as its inverse
_LEAST_FOR_REQUESTS: Final = 2_097_152  # bytes, also where no page is kept in memory


def pages_share(memory_bytes: int) -> int:
    """The bytes of `cache.memory_bytes` that pages may take."""
    return memory_bytes - memory_bytes // _REQUESTS


def requests_share(memory_bytes: int) -> int:
    """The bytes of `cache.memory_bytes` that remembered requests may take."""
    return max(memory_bytes // _REQUESTS, _LEAST_FOR_REQUESTS)


class Rendered(NamedTuple):
    """A body as it is sent, and the size of its rows before compression."""

    body: bytes
    rows_size: int


class Guess:
    """The guess that a page would be asked for. It outlives the page, which may be evicted."""

    __slots__ = ("is_open",)

    def __init__(self) -> None:
        self.is_open = True


class CacheEntry:
    """A page in memory, with the bodies, entity tags and heads of answers that were made of it.

    `guess` is set if it was read before a request asked for it.
    """

    __slots__ = ("bodies", "entity_tags", "guess", "heads", "key", "page")

    def __init__(self, page: Page, key: PageKey | None = None) -> None:
        self.page = page
        self.key = key
        self.bodies: dict[Hashable, Rendered] = {}
        self.entity_tags: dict[Hashable, str] = {}
        self.heads: dict[Hashable, bytes] = {}
        self.guess = Guess() if page.prefetched else None

    def size(self) -> int:
        """The bytes of memory that it takes, roughly."""
        records = self.page.size() + _A_RECORD * len(self.page.records)
        bodies = sum(len(made.body) for made in self.bodies.values())
        heads = sum(map(len, self.heads.values())) + _A_HEAD * len(self.heads)
        return _A_PAGE + len(self.key or "") + records + bodies + heads


class Memory(LRUCache[PageKey, CacheEntry]):
    """Pages by key. What is larger than a sixteenth of the whole is not kept."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__(most_bytes, getsizeof=CacheEntry.size)
        self.evicted = 0

    def find(self, key: PageKey) -> CacheEntry | None:
        """The page, which now is the most recently used. In half of the time that `get` takes."""
        try:
            return self[key]
        except KeyError:
            return None

    def put(self, key: PageKey, held: CacheEntry) -> None:
        """Keep the entry, or count it anew when it has grown."""
        if held.size() > self.maxsize // 16:
            self.pop(key, None)
        else:
            self[key] = held

    def popitem(self) -> tuple[PageKey, CacheEntry]:
        """Evict the least recently used."""
        key, held = super().popitem()
        self.evicted += 1
        return key, held
