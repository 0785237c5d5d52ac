"""The forms of a page: body, entity tag and link, the same for every caller."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from aiohttp import web

from feedsvc.cache.envelope import PageRequest
from feedsvc.cache.memory import CacheEntry, Rendered
from feedsvc.feeds.page import Page
from feedsvc.feeds.query import FeedQuery
from feedsvc.web import headers
from streams.compression import CODINGS
from streams.formats import Pieces, size_of
from streams.frames import End, Open, Rows


@dataclass(frozen=True, slots=True)
class PageForm:
    """A query's form of a page: its entity tag, its body, its link to the next page.

    `given` are the request's parameters and `path` its path, which that link is made of.
    """

    query: FeedQuery
    coding: str
    path: str
    given: Mapping[str, str]

    def entity_tag(self, held: CacheEntry) -> str:
        """The page's tag in this form, made once for each page that is held."""
        form = self._tag_form
        tag = held.entity_tags.get(form)
        if tag is None:
            tag = held.entity_tags[form] = headers.entity_tag(self.query, held.page)
        return tag

    def link(self, page: Page) -> str | None:
        """The value of Link, None for the last page."""
        if not page.more or page.last is None:
            return None
        return headers.next_page(self.path, self.given, page.last)

    def rendered(self, held: CacheEntry) -> Rendered:
        """A body without frames, the same for all callers, made once for each page that is held."""
        form = (*self._tag_form, self.coding)
        made = held.bodies.get(form)
        if made is None:
            made = held.bodies[form] = self.body(held.page)
        return made

    def body(self, page: Page, export: str = "", elapsed_ms: int = 0) -> Rendered:
        """The body. Frames show the export and its milliseconds, nothing else does."""
        encoder, started = self.query.format.encoder(self.query.layout), self.query.after_token
        count, name = len(page.records), self.query.dataset.name
        head = Open(export, name, self.query.layout.columns, count, "exact", started)
        opening = encoder.encode(head)
        rows: Pieces = ()
        if page.last is not None:
            rows = encoder.encode(rows_of(page, self.query, page.last))
        end = End(
            rows=count,
            elapsed_ms=elapsed_ms,
            after=page.last or started,
            more=page.more,
            snapshots=1,
            export=export,
        )
        body = b"".join((*opening, *rows, *encoder.encode(end)))
        compressor = CODINGS[self.coding]()
        made = b"".join((*compressor.compress((body,)), compressor.finish()))
        return Rendered(made, size_of(rows))

    @property
    def _tag_form(self) -> tuple[Hashable, Hashable]:
        return self.query.format.name, self.query.layout


class Repeatable(NamedTuple):
    """A request for a first page that may be answered here when it comes again."""

    wanted: PageRequest
    form: PageForm


REPEATABLE: Final = web.RequestKey("repeatable", Repeatable)


def rows_of(page: Page, query: FeedQuery, last: str) -> Rows:
    """A page's records as the query's format has them, `last` being the token of the last one."""
    between = query.format.between(query.layout)
    return Rows(between.join(page.records), len(page.records), last)
