"""A request's answer, and what may not be in it."""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from backports import zstd

from tests.support.canaries.world import CANARY, MARK, Caller

_CHUNK: Final = re.compile(rb"([0-9a-fA-F]+)\r\n")


@dataclass(frozen=True)
class Ask:
    """A request, and what its answer must be where it is received whole.

    `marks` are those of exactly the rows that it must have, in their order; None says nothing.
    """

    what: str
    caller: Caller
    target: str
    marks: Sequence[str] | None
    statuses: frozenset[int] = frozenset({200})
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"
    body: bytes | None = None
    with_token: bool = True

    def all_headers(self) -> dict[str, str]:
        """The request's headers, the token among them."""
        return {**(self.caller.headers if self.with_token else {}), **self.headers}

    def reported(self) -> frozenset[bytes]:
        """The canaries that the caller itself has sent, which an answer may give back."""
        sent = " ".join((self.target, *self.headers.values())).encode()
        return frozenset(match[0] for match in CANARY.finditer(sent))


@dataclass
class Answer:
    """As much of an answer as was received; `whole` where its end was seen."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytearray = field(default_factory=bytearray)
    whole: bool = False

    def body(self) -> bytes:
        """The body's bytes before compression, as far as they can be told."""
        return unpacked(bytes(self.raw), self.headers.get("Content-Encoding", "identity"))


def unpacked(raw: bytes, coding: str) -> bytes:
    """The decompressed text, up to where it was cut."""
    match coding:
        case "gzip":
            return zlib.decompressobj(wbits=31).decompress(raw)
        case "zstd":
            return zstd.ZstdDecompressor().decompress(raw)
        case _:
            return raw


def unchunked(raw: bytes) -> bytes:
    """The content of a chunked body (RFC 9112, section 7.1), up to where it was cut."""
    content, position = b"", 0
    while size := _CHUNK.match(raw, position):
        length = int(size[1], 16)
        content += raw[size.end() : size.end() + length]
        position = size.end() + length + 2
    return content


def foreign(ask: Ask, answer: Answer, body: bytes) -> list[str]:
    """The canaries in an answer, whole or cut, that are neither the caller's nor sent by it."""
    fields = "\n".join(f"{name}: {value}" for name, value in answer.headers.items()).encode()
    reported = ask.reported()
    found = []
    for match in CANARY.finditer(fields + b"\n" + body):
        tenant, client = match[1].decode(), None if match[2] is None else int(match[2])
        # A canary at the place of a cut is only the beginning of what was sent.
        if not ask.caller.owns(tenant, client) and not any(
            t.startswith(match[0]) for t in reported
        ):
            found.append(match[0].decode())
    return found


def amiss(ask: Ask, answer: Answer, body: bytes) -> str | None:
    """A fault in the rows of an answer, None where there is none."""
    if answer.status not in ask.statuses:
        return f"{answer.status} in place of {sorted(ask.statuses)}"
    if ask.marks is None or answer.status != 200:
        return None
    marks = [mark.decode() for mark in MARK.findall(body)]
    if ask.method == "HEAD":
        return f"a HEAD has a body of {len(body)} bytes" if body else None
    if answer.whole and marks != list(ask.marks):
        return f"{len(marks)} rows in place of {len(ask.marks)}, or others"
    if marks != list(ask.marks[: len(marks)]):
        return "what was received before the cut is not how the rows begin"
    return None
