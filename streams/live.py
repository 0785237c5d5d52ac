"""Live answers: the events of a feed that is followed, each with an id to come back with.

First `open` and `rows`, the state of a feed, then `change` for what has changed and `sync` for a
state that the reader has as a whole. In a stream of several feeds each event but `sync` names its
feed, and its array stands behind the name (`rows` or `changes`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from streams.formats import Pieces, open_data
from streams.frames import Open, Rows

RESET_ID: Final = "reset"
"""The id behind which a client gets the feed anew, as the browser's own EventSource does."""


def opening(ident: str, frame: Open, feed: str | None) -> bytes:
    """`event: open`."""
    data = open_data(frame)
    return _event("open", ident, data if feed is None else {"feed": feed, **data})


def rows(ident: str, frame: Rows, feed: str | None) -> Pieces:
    """`event: rows`, whose records are pieces of their own."""
    before, behind = _around("rows", feed)
    return b"event: rows\nid: %b\ndata: %b[" % (ident.encode("ascii"), before), frame.body, behind


def change(
    ident: str, upserts: Sequence[bytes], deletes: Sequence[bytes], feed: str | None
) -> bytes:
    """`event: change`; each row and each key is a JSON object on one line."""
    listed = [b'{"op":"upsert","row":%b}' % row for row in upserts]
    listed += [b'{"op":"delete","key":%b}' % key for key in deletes]
    before, behind = _around("changes", feed)
    head = b"event: change\nid: %b\ndata: %b[" % (ident.encode("ascii"), before)
    return head + b",".join(listed) + behind


def sync(cursor: str, upserts: int = 0, deletes: int = 0) -> bytes:
    """`event: sync`: the reader has the state of the cursor, by so many changes at once."""
    return _event("sync", cursor, {"cursor": cursor, "upserts": upserts, "deletes": deletes})


def reset(problem: Mapping[str, Any], retry_ms: int) -> bytes:
    """`event: reset`: what follows can't be told, and the feed is to be read anew."""
    return b"retry: %d\n%b" % (retry_ms, _event("reset", RESET_ID, problem))


def failure(problem: Mapping[str, Any], retry_ms: int) -> bytes:
    """`event: error`, without an id: a client comes back with the one of what it has got."""
    return b"event: error\nretry: %d\ndata: %b\n\n" % (retry_ms, orjson.dumps(problem))


def _around(name: str, feed: str | None) -> tuple[bytes, bytes]:
    if feed is None:
        return b"", b"]\n\n"
    return b'{"feed":%b,"%b":' % (orjson.dumps(feed), name.encode("ascii")), b"]}\n\n"


def _event(kind: str, ident: str, data: Mapping[str, Any]) -> bytes:
    head = f"event: {kind}\nid: {ident}\ndata: ".encode("ascii")
    return b"%b%b\n\n" % (head, orjson.dumps(data))
