"""Items of the ledger: what a page carries, and what a row of the change log puts out of date.

A page carries the tags that its request pins down: its tenant's scope, its client, what it compares
with `eq`. A changed row concerns *exactly* the pages of its scope whose narrowest tag it fills in,
and those without a narrow one; a change that is wider than single rows (a TRUNCATE, an operator's
request) concerns *all under* a scope or a tag. So a row of one client puts that client's pages and
its supplier's out of date, and no other's.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from feedsvc.changes import log_hash
from feedsvc.changes.log_entries import LogEntry
from feedsvc.changes.log_rules import LogFeed
from feedsvc.datasets.tags import Template

_TAG_BYTES: Final = 4
_ROWS: Final = frozenset("ug")


@dataclass(frozen=True, slots=True)
class FollowedFeed:
    """A dataset as this database logs it: with its scope `everyone`, in texts of this `codec`."""

    feed: LogFeed
    everyone: int
    codec: str

    def items(
        self, templates: Sequence[Template], pinned: Mapping[str, str]
    ) -> tuple[bytes, ...] | None:
        """The items of a page whose rows all have these values.

        Of two tags that name as many columns the later one is taken for the narrower. None where no
        row of the database can have the values.
        """
        tenant = self.feed.tenant
        try:
            scope = self.everyone
            if tenant is not None:
                scope = log_hash.scope(pinned[tenant], self.everyone, self.codec)
            filled = [(t, text) for t in templates if (text := t.fill(pinned)) is not None]
            tags = [(t, log_hash.tag(text, self.codec)) for t, text in filled]
        except (KeyError, UnicodeEncodeError):
            return None
        narrow = [(len(t.columns), tag) for t, tag in tags if t in self.feed.narrow]
        narrowest = max(reversed(narrow), key=lambda item: item[0])[1] if narrow else b""
        scopes = dict.fromkeys((scope, self.everyone))
        return (
            _exactly(scope, narrowest),
            *map(_all_under, scopes),
            *(_all_with(tag) for _, tag in tags),
        )


def items_of(entry: LogEntry) -> Iterator[bytes]:
    """The items of the pages that a row of the log puts out of date."""
    tags = [entry.tags[at : at + _TAG_BYTES] for at in range(0, len(entry.tags), _TAG_BYTES)]
    if entry.op in _ROWS:
        yield _exactly(entry.scope)
        for tag in tags:
            yield _exactly(entry.scope, tag)
    elif entry.op == "i" or (entry.op == "w" and tags):
        yield from map(_all_with, tags)
    else:
        yield _all_under(entry.scope)


def as_logged(tags: Iterable[str], server_encoding: str) -> bytes:
    """The tags of an operator's word, as the log has them; not those that no row can have."""
    codec, found = log_hash.codec(server_encoding), []
    for tag in tags:
        with suppress(UnicodeEncodeError):
            found.append(log_hash.tag(tag, codec))
    return b"".join(found)


def _exactly(scope: int, tag: bytes = b"") -> bytes:
    return b"=" + scope.to_bytes(8, "big", signed=True) + tag


def _all_under(scope: int) -> bytes:
    return b"*" + scope.to_bytes(8, "big", signed=True)


def _all_with(tag: bytes) -> bytes:
    return b"#" + tag
