"""Numbers of scopes and tags in the change log, as PostgreSQL's own hash of texts makes them.

The hash is lookup3 as in PostgreSQL's `hashfn.c` on a little-endian machine, which hash partitions
rely on from release to release. A scope's seed is a random number in the database: without it no
tenant's name can be chosen to have another's number.
"""

import codecs
from functools import lru_cache
from typing import Final

_WORD: Final = 0xFFFFFFFF
_START: Final = 0x9E3779B9 + 3_923_095
_BLOCK: Final = 12
_SIGN: Final = 1 << 63
NO_TENANT: Final = 1
"""The scope of rows whose tenant is NULL, which no caller reads."""

_OTHER_NAMES: Final = {"SQL_ASCII": "utf-8", "KOI8R": "koi8_r", "KOI8U": "koi8_u"}


def codec(server_encoding: str) -> str:
    """Python's name of a database's encoding. Raises LookupError where Python has none.

    Texts in SQL_ASCII have the bytes that clients sent, which ours are in UTF-8.
    """
    name = _OTHER_NAMES.get(server_encoding) or server_encoding.replace("WIN", "cp")
    return codecs.lookup(name).name


@lru_cache(8_192)
def scope(tenant: str, seed: int, encoding: str = "utf-8") -> int:
    """The scope of a tenant's rows: `hashtextextended(tenant, seed)`.

    `seed` is the feed's `everyone` in `feedsvc.log_feeds`, `encoding` the database's.
    """
    high, low = _lookup3(tenant.encode(encoding), seed)
    number = high << 32 | low
    return number - 2 * _SIGN if number >= _SIGN else number


@lru_cache(8_192)
def tag(text: str, encoding: str = "utf-8") -> bytes:
    """A narrow tag's four bytes in a log row's `tags`: `int4send(hashtext(text))`."""
    return _lookup3(text.encode(encoding), 0)[1].to_bytes(4, "big")


def _lookup3(key: bytes, seed: int) -> tuple[int, int]:
    a = b = c = (_START + len(key)) & _WORD
    if seed:
        a, b, c = _mixed(a + (seed >> 32), b + seed, c)
    at = 0
    while len(key) - at >= _BLOCK:
        words = (int.from_bytes(key[i : i + 4], "little") for i in range(at, at + _BLOCK, 4))
        a, b, c = (now + word for now, word in zip((a, b, c), words, strict=True))
        a, b, c = _mixed(a, b, c)
        at += _BLOCK
    rest = key[at:]
    a += int.from_bytes(rest[:4], "little")
    b += int.from_bytes(rest[4:8], "little")
    # The lowest byte is the length's.
    c += int.from_bytes(rest[8:], "little") << 8
    return _finished(a & _WORD, b & _WORD, c & _WORD)


def _rotated(word: int, by: int) -> int:
    return (word << by | word >> (32 - by)) & _WORD


def _mixed(a: int, b: int, c: int) -> tuple[int, int, int]:
    a, b, c = a & _WORD, b & _WORD, c & _WORD
    for by in (4, 6, 8, 16, 19, 4):
        a = (a - c & _WORD) ^ _rotated(c, by)
        c = c + b & _WORD
        a, b, c = b, c, a
    return a, b, c


def _finished(a: int, b: int, c: int) -> tuple[int, int]:
    for by in (14, 11, 25, 16, 4, 14, 24):
        c = (c ^ b) - _rotated(b, by) & _WORD
        a, b, c = b, c, a
    # Seven steps of three names: the last one written is now `b`.
    return a, b
