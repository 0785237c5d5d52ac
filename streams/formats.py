"""The four formats: frames in, bytes out.

An encoder is an object with one method, `encode(frame) -> Pieces`. It keeps what a body needs to
know of itself: whether a record came before, and how many bytes it has made. It never waits and
never fails, so its caller has no generator to close when a client vanishes.

Rows come joined, and leave as they came: what a format puts before and behind them are pieces of
their own, for to put all of it in one would be to copy it.

Every write ends on a record's boundary. Only `End` closes a body; after `Failure` a JSON array
stays open, which no parser takes for whole.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import orjson

from streams.csv_record import PLAIN_CSV, CsvStyle, csv_record
from streams.frames import End, Failure, Frame, Joined, Open, Ping, Progress, Rows

Pieces: TypeAlias = Sequence[Joined]
"""Pieces of memory that are sent as they are, one behind the other."""

END_ID: Final = "end"
"""The id of an SSE feed's last event: a client that comes back with it has everything."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The options of a format: `frames` is NDJSON's, the others are CSV's."""

    columns: tuple[str, ...]
    frames: bool = False
    header: bool = True
    bom: bool = False
    csv: CsvStyle = PLAIN_CSV


class Encoder(Protocol):
    """Turns frames into a body, in order."""

    bytes_made: int

    def encode(self, frame: Frame) -> Pieces:
        """This frame, in no piece where the format has no way to show it."""
        ...


def size_of(pieces: Pieces) -> int:
    """The bytes of all pieces."""
    return sum(map(len, pieces))


class JsonEncoder:
    """One array, each object on a line of its own, so that a cut body shows its last whole row."""

    __slots__ = ("_begun", "bytes_made")

    def __init__(self, _layout: Layout) -> None:
        self.bytes_made = 0
        self._begun = False

    def encode(self, frame: Frame) -> Pieces:
        """See `Encoder.encode`."""
        match frame:
            case Rows(body):
                made: Pieces = (b",\n" if self._begun else b"[\n", body)
                self._begun = True
            case End():
                made = (b"\n]\n" if self._begun else b"[]\n",)
            case _:
                return ()
        self.bytes_made += size_of(made)
        return made


class NdjsonEncoder:
    """One object a line."""

    __slots__ = ("bytes_made",)

    def __init__(self, _layout: Layout) -> None:
        self.bytes_made = 0

    def encode(self, frame: Frame) -> Pieces:
        """See `Encoder.encode`."""
        match frame:
            case Rows(body):
                self.bytes_made += len(body) + 1
                return body, b"\n"
            case _:
                return ()


class FramedNdjsonEncoder:
    """One frame a line: an object with one key that says what it is."""

    __slots__ = ("bytes_made",)

    def __init__(self, _layout: Layout) -> None:
        self.bytes_made = 0

    def encode(self, frame: Frame) -> Pieces:
        """See `Encoder.encode`."""
        made = self._lines(frame)
        self.bytes_made += size_of(made)
        return made

    def _lines(self, frame: Frame) -> Pieces:
        match frame:
            case Rows(body):
                return b'{"row":', body, b"}\n"
            case Progress():
                return (_line("progress", progress_data(frame, self.bytes_made)),)
            case End():
                return (_line("end", end_data(frame, self.bytes_made)),)
            case Failure():
                return (_line("error", failure_data(frame)),)
            case _:
                return ()


class SseEncoder:
    """Server-sent events (WHATWG HTML, section 9.2).

    A record is JSON on one line and an id is percent-encoded, so no datum can end a line, and
    with that no datum can break or forge an event.
    """

    __slots__ = ("bytes_made",)

    def __init__(self, _layout: Layout) -> None:
        self.bytes_made = 0

    def encode(self, frame: Frame) -> Pieces:
        """See `Encoder.encode`."""
        made = self._event(frame)
        self.bytes_made += size_of(made)
        return made

    def _event(self, frame: Frame) -> Pieces:
        match frame:
            case Rows(body, last=last):
                return b"event: rows\nid: " + _row_id(last) + b"\ndata: [", body, b"]\n\n"
            case Open():
                return (_event("open", open_data(frame)),)
            case Progress():
                return (_event("progress", progress_data(frame, self.bytes_made)),)
            case End():
                return (_event("end", end_data(frame, self.bytes_made), ident=END_ID),)
            case Failure(retry_ms=retry_ms):
                retry = b"" if retry_ms is None else b"retry: %d\n" % retry_ms
                return (retry + _event("error", failure_data(frame)),)
            case Ping():
                return (b": ping\n\n",)


class CsvEncoder:
    """RFC 4180 records that are quoted already."""

    __slots__ = ("_head", "bytes_made")

    def __init__(self, layout: Layout) -> None:
        self.bytes_made = 0
        header = csv_record(layout.columns, layout.csv) + "\r\n" if layout.header else ""
        self._head = (("\ufeff" if layout.bom else "") + header).encode()

    def encode(self, frame: Frame) -> Pieces:
        """See `Encoder.encode`."""
        match frame:
            case Rows(body):
                made: Pieces = (self._head, body, b"\r\n") if self._head else (body, b"\r\n")
            case Open() | End():
                made = (self._head,) if self._head else ()
            case _:
                return ()
        self._head = b""
        self.bytes_made += size_of(made)
        return made


def open_data(frame: Open) -> dict[str, Any]:
    """The object of an `open` frame."""
    return {
        "export": frame.export,
        "dataset": frame.dataset,
        "columns": list(frame.columns),
        "total": frame.total,
        "total_kind": frame.total_kind,
        "after": frame.after,
        "cursor": frame.cursor,
    }


def progress_data(frame: Progress, bytes_made: int) -> dict[str, Any]:
    """The object of a `progress` frame; `bytes_made` is the uncompressed body before it."""
    seconds = frame.elapsed_ms / 1000
    return {
        "rows": frame.rows,
        "bytes": bytes_made,
        "total": frame.total,
        "total_kind": frame.total_kind,
        "elapsed_ms": frame.elapsed_ms,
        "rows_per_s": round(frame.rows / seconds) if seconds else 0,
        "after": frame.after,
    }


def end_data(frame: End, bytes_made: int) -> dict[str, Any]:
    """The object of an `end` frame; `bytes_made` is the uncompressed body before it."""
    return {
        "rows": frame.rows,
        "bytes": bytes_made,
        "elapsed_ms": frame.elapsed_ms,
        "after": frame.after,
        "more": frame.more,
        "snapshots": frame.snapshots,
        "cursor": frame.cursor,
        "export": frame.export,
    }


def failure_data(frame: Failure) -> dict[str, Any]:
    """The object of an `error` frame: the problem, and the token to go on from."""
    return {**frame.problem, "after": frame.after}


def _line(kind: str, data: Mapping[str, Any]) -> bytes:
    return orjson.dumps({kind: data}, option=orjson.OPT_APPEND_NEWLINE)


def _row_id(token: str) -> bytes:
    """The token as an event's id. A key may be the very word that an ended stream's id is."""
    return b"%65nd" if token == END_ID else token.encode("ascii")


def _event(kind: str, data: Mapping[str, Any], ident: str | None = None) -> bytes:
    name = f"event: {kind}\n" if ident is None else f"event: {kind}\nid: {ident}\n"
    return name.encode("ascii") + b"data: " + orjson.dumps(data) + b"\n\n"


@dataclass(frozen=True, slots=True)
class Format:
    """A format by its public name. The first of the media types is the one that is sent.

    `between` has the bytes that join records, which differ in a layout with frames.
    """

    name: str
    media_types: tuple[str, ...]
    encoder: Callable[[Layout], Encoder]
    _between: bytes
    _framed_between: bytes | None = None

    def between(self, layout: Layout) -> bytes:
        """The bytes between two records of one `Rows`."""
        if layout.frames and self._framed_between is not None:
            return self._framed_between
        return self._between


def _ndjson(layout: Layout) -> Encoder:
    return FramedNdjsonEncoder(layout) if layout.frames else NdjsonEncoder(layout)


JSON: Final = Format("json", ("application/json",), JsonEncoder, b",\n")
CSV: Final = Format("csv", ("text/csv",), CsvEncoder, b"\r\n")
NDJSON: Final = Format(
    "ndjson",
    ("application/x-ndjson", "application/jsonl", "application/ndjson"),
    _ndjson,
    b"\n",
    b'}\n{"row":',
)
SSE: Final = Format("sse", ("text/event-stream",), SseEncoder, b",")

FORMATS: Final[Mapping[str, Format]] = {f.name: f for f in (JSON, CSV, NDJSON, SSE)}
