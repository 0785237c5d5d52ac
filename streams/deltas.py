"""Deltas: what has changed in a feed, as NDJSON frames and as SSE events.

A delta is any number of `ChangeBatch` and `Ping`, then exactly one of `Sync`, `ResetNeeded` or
`Failure`. Only `Sync` says that everything was sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from streams.formats import NDJSON, Format, FramedNdjsonEncoder, Layout, Pieces, SseEncoder, size_of
from streams.frames import Failure, Ping


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """Rows as they are now, and keys of rows that are gone; each a JSON object on one line."""

    upserts: Sequence[bytes]
    deletes: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Sync:
    """The proper end of a delta: the reader has the state of `cursor`.

    `upserts` and `deletes` count what the delta sent. With `has_digest` it shows `rows`, the number
    of all rows that the caller sees, and their `digest`, 64 bits; None where they are not known.
    """

    cursor: str
    upserts: int
    deletes: int
    has_digest: bool = False
    rows: int | None = None
    digest: int | None = None


@dataclass(frozen=True, slots=True)
class ResetNeeded:
    """The proper end of a delta whose cursor can't be continued, with the problem that says why."""

    problem: Mapping[str, Any]


DeltaFrame: TypeAlias = ChangeBatch | Sync | ResetNeeded | Failure | Ping


class NdjsonDeltaEncoder:
    """One change a line: an object with one key that says what it is."""

    __slots__ = ("_frames", "bytes_made")

    def __init__(self, layout: Layout) -> None:
        self.bytes_made = 0
        self._frames = FramedNdjsonEncoder(layout)

    def encode(self, frame: DeltaFrame) -> Pieces:
        """The frame's bytes, in no piece where NDJSON has no way to show it."""
        made = self._lines(frame)
        self.bytes_made += size_of(made)
        return made

    def _lines(self, frame: DeltaFrame) -> Pieces:
        match frame:
            case ChangeBatch(upserts, deletes):
                lines = [b'{"upsert":%b}\n' % row for row in upserts]
                return (b"".join([*lines, *(b'{"delete":%b}\n' % key for key in deletes)]),)
            case Sync():
                return (orjson.dumps({"sync": _sync(frame)}, option=orjson.OPT_APPEND_NEWLINE),)
            case ResetNeeded():
                return ()  # it is an answer of its own, with a status
            case _:
                return self._frames.encode(frame)


class SseDeltaEncoder:
    """Events `change`, an array of changes, and `sync` or `reset` at the end."""

    __slots__ = ("_frames", "bytes_made")

    def __init__(self, layout: Layout) -> None:
        self.bytes_made = 0
        self._frames = SseEncoder(layout)

    def encode(self, frame: DeltaFrame) -> Pieces:
        """The frame's bytes."""
        made = self._event(frame)
        self.bytes_made += size_of(made)
        return made

    def _event(self, frame: DeltaFrame) -> Pieces:
        match frame:
            case ChangeBatch(upserts, deletes):
                listed = [b'{"op":"upsert","row":%b}' % row for row in upserts]
                listed += [b'{"op":"delete","key":%b}' % key for key in deletes]
                return (b"event: change\ndata: [%b]\n\n" % b",".join(listed),)
            case Sync(cursor=cursor):
                # The id makes the browser's own EventSource come back with this cursor.
                ident = b"event: sync\nid: %b\n" % cursor.encode("ascii")
                return (ident + b"data: %b\n\n" % orjson.dumps(_sync(frame)),)
            case ResetNeeded(problem):
                return (b"event: reset\ndata: %b\n\n" % orjson.dumps(problem),)
            case _:
                return self._frames.encode(frame)


def delta_encoder(form: Format, layout: Layout) -> NdjsonDeltaEncoder | SseDeltaEncoder:
    """An encoder of deltas in this format, which is NDJSON or SSE."""
    return NdjsonDeltaEncoder(layout) if form is NDJSON else SseDeltaEncoder(layout)


def _sync(frame: Sync) -> dict[str, Any]:
    data = {"cursor": frame.cursor, "upserts": frame.upserts, "deletes": frame.deletes}
    return {**data, "rows": frame.rows, "digest": frame.digest} if frame.has_digest else data
