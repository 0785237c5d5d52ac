"""The tier in this process's memory: bounded in bytes, the least recently used goes first."""

from collections.abc import Hashable, Iterator
from typing import Final, NamedTuple

from feedsvc.cache.envelope import PageKey
from feedsvc.core.bounded_mapping import RecentMapping
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


class ReadyAnswer(NamedTuple):
    """An answer of a page in certain words: the lines of its head that follow from them, its body.

    `rows_size` is the size of the rows before compression, in bytes.
    """

    lines: bytes
    body: bytes = b""
    rows: int = 0
    rows_size: int = 0


class Guess:
    """The guess that a page would be asked for. It outlives the page, which may be evicted."""

    __slots__ = ("is_open",)

    def __init__(self) -> None:
        self.is_open = True


class CacheEntry:
    """A page in memory, with the bodies, entity tags and answers that were made of it.

    The answers' bodies are among the bodies. `guess` is set if it was read before a request asked
    for it.
    """

    __slots__ = ("answers", "bodies", "entity_tags", "guess", "key", "page")

    def __init__(self, page: Page, key: PageKey | None = None) -> None:
        self.page = page
        self.key = key
        self.bodies: dict[Hashable, Rendered] = {}
        self.entity_tags: dict[Hashable, str] = {}
        self.answers: dict[Hashable, ReadyAnswer] = {}
        self.guess = Guess() if page.prefetched else None

    def size(self) -> int:
        """The bytes of memory that it takes, roughly."""
        records = self.page.size() + _A_RECORD * len(self.page.records)
        bodies = sum(len(made.body) for made in self.bodies.values())
        heads = sum(len(made.lines) + _A_HEAD for made in self.answers.values())
        return _A_PAGE + len(self.key or "") + records + bodies + heads


class Memory:
    """Pages by key. What is larger than a sixteenth of the whole is not kept."""

    def __init__(self, most_bytes: int) -> None:
        self._entries: RecentMapping[PageKey, CacheEntry] = RecentMapping(most_bytes)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[PageKey]:
        return iter(self._entries)

    @property
    def size(self) -> int:
        """The bytes of all pages."""
        return self._entries.size

    @property
    def most(self) -> int:
        """The bytes that all pages together may take."""
        return self._entries.most

    @property
    def evicted(self) -> int:
        """The number of pages that had to make room for others."""
        return self._entries.evicted

    def find(self, key: PageKey) -> CacheEntry | None:
        """The page, which now is the most recently used; None where there is none."""
        return self._entries.get(key)

    def put(self, key: PageKey, held: CacheEntry) -> None:
        """Keep the entry, or count it anew when it has grown."""
        size = held.size()
        if size > self.most // 16:
            self._entries.forget(key)
        else:
            self._entries.put(key, held, size)

    def clear(self) -> None:
        """Remove all pages."""
        self._entries.clear()
