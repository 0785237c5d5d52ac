"""Cursors: a state of the database in a form that clients keep, from which changes are followed.

A cursor is a PostgreSQL snapshot, so what is new since then is what a later snapshot sees and this
one does not: no order of commits is needed (PgQ's `batch_event_sql`). It belongs to one life of one
database (`origin`, `epoch`) and to one caller, and names the feeds that it was given for, each with
how it was read; a feed that it does not name may be followed from it all the same, with the filters
and columns of that request.
"""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, NamedTuple

from feedsvc.access.service_key import Seal
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.core.principal import Principal

LONGEST: Final = 4_096
"""Characters of the longest cursor, so that one fits a URL and `Last-Event-ID`."""

_VERSION: Final = 1
_MAC_SIZE: Final = 8
_ORIGIN_SIZE: Final = 6
_EPOCH_SIZE: Final = 8
_DIGEST_SIZE: Final = 4
_MOST_FEEDS: Final = 16
_HEAD_SIZE: Final = 1 + _ORIGIN_SIZE + _EPOCH_SIZE + 2 * _DIGEST_SIZE


class CursorTooLongError(Exception):
    """So many transactions were running that the state does not fit `LONGEST` characters."""


class ForeignCursorError(Exception):
    """The cursor was sealed with another key than the service's present one."""


class FeedState(NamedTuple):
    """A feed as it was read: digests of its query, of the rights and of the relations behind it."""

    query: bytes
    rights: bytes
    schema: bytes


@dataclass(frozen=True, slots=True)
class Cursor:
    """A state of a database, and the feeds that were read in it.

    `origin`, `reader` and `policies`, those of the whole database, are digests (`origin_digest`,
    `reader_digest`, `state_digest`), `feeds` has the states of the feeds by the digest of their
    name (`feed_digest`). `epoch`: 64 bits, drawn anew by each life of the database in which commits
    may have been lost.
    """

    snapshot: Snapshot
    origin: bytes
    epoch: int
    reader: bytes
    policies: bytes
    feeds: Mapping[bytes, FeedState]

    def moved(self, snapshot: Snapshot, policies: bytes, feed: bytes, state: FeedState) -> "Cursor":
        """The cursor of a later state, in which this feed was read as well.

        Of many feeds the ones named earliest are dropped.
        """
        others = [(name, kept) for name, kept in self.feeds.items() if name != feed]
        feeds = dict([*others, (feed, state)][-_MOST_FEEDS:])
        return replace(self, snapshot=snapshot, policies=policies, feeds=feeds)

    def encode(self, seal: Seal) -> str:
        """The cursor as text of URL-safe characters. Raises CursorTooLongError."""
        made = bytearray((_VERSION,))
        made += self.origin + self.epoch.to_bytes(_EPOCH_SIZE, "big")
        made += self.reader + self.policies
        made += _number(len(self.feeds))
        for name, state in self.feeds.items():
            made += name + state.query + state.rights + state.schema
        made += _encoded_snapshot(self.snapshot)
        text = urlsafe_b64encode(made + seal.mac(bytes(made))[:_MAC_SIZE]).rstrip(b"=").decode()
        if len(text) > LONGEST:
            raise CursorTooLongError(f"the state takes {len(text)} characters")
        return text

    @classmethod
    def decode(cls, text: str, seal: Seal) -> "Cursor":
        """The cursor of a text. Raises ValueError, and ForeignCursorError."""
        whole = _bytes_of(text)
        content, mac = whole[:-_MAC_SIZE], whole[-_MAC_SIZE:]
        if len(content) <= _HEAD_SIZE or content[0] != _VERSION:
            raise ValueError("a cursor as `end`, `open` or `sync` gave it")
        if not seal.fits_beginning(mac, content):
            raise ForeignCursorError
        rest = iter(content[1:])
        origin = _taken(rest, _ORIGIN_SIZE)
        epoch = int.from_bytes(_taken(rest, _EPOCH_SIZE), "big")
        reader, policies = _taken(rest), _taken(rest)
        feeds = {_taken(rest): _state(rest) for _ in range(_read_number(rest))}
        return cls(_read_snapshot(rest), origin, epoch, reader, policies, feeds)


def origin_digest(origin: str) -> bytes:
    """The digest of a database's origin (`feedsvc.backends.postgres.lineage.Origin` as text)."""
    return _digest(origin, size=_ORIGIN_SIZE)


def reader_digest(principal: Principal) -> bytes:
    """The digest of what row-level security knows of a caller."""
    return _digest(*principal.scope)


def feed_digest(dataset: str) -> bytes:
    """The digest of a dataset's name."""
    return _digest(dataset)


def state_digest(*parts: str) -> bytes:
    """The digest of a part of a feed's state (`FeedState`)."""
    return _digest(*parts)


def _digest(*parts: str, size: int = _DIGEST_SIZE) -> bytes:
    code = hashlib.blake2b(digest_size=size)
    for part in parts:
        encoded = part.encode(errors="surrogatepass")
        code.update(len(encoded).to_bytes(8, "big"))
        code.update(encoded)
    return code.digest()


def _bytes_of(text: str) -> bytes:
    if not text or len(text) > LONGEST or not text.isascii():
        raise ValueError("a cursor as `end`, `open` or `sync` gave it")
    try:
        whole = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise ValueError("a cursor as `end`, `open` or `sync` gave it") from None
    # Characters outside of the alphabet, and bits behind the last byte, are ignored there.
    if urlsafe_b64encode(whole).rstrip(b"=").decode() != text:
        raise ValueError("a cursor as `end`, `open` or `sync` gave it")
    return whole


def _encoded_snapshot(snapshot: Snapshot) -> bytes:
    """`xmin`, then each number as its distance from the one before: those that run lie close."""
    running = sorted(snapshot.running)
    made = _number(snapshot.xmin) + _number(snapshot.xmax - snapshot.xmin) + _number(len(running))
    before = snapshot.xmin
    for xid in running:
        made += _number(xid - before)
        before = xid
    return made


def _read_snapshot(content: Iterator[int]) -> Snapshot:
    xmin = _read_number(content)
    xmax = xmin + _read_number(content)
    running, before = list[int](), xmin
    for _ in range(_read_number(content)):
        before += _read_number(content)
        running.append(before)
    return Snapshot(xmin, xmax, frozenset(running))


def _number(value: int) -> bytes:
    """A whole number, 7 bits a byte, the lowest first (LEB128: DWARF 5, section 7.6)."""
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _read_number(content: Iterator[int]) -> int:
    value = shift = 0
    for byte in content:
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
        shift += 7
    raise ValueError("a cursor that is whole")


def _taken(content: Iterator[int], size: int = _DIGEST_SIZE) -> bytes:
    return bytes(islice(content, size))


def _state(content: Iterator[int]) -> FeedState:
    return FeedState(_taken(content), _taken(content), _taken(content))
