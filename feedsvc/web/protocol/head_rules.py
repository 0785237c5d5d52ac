"""Rules for a request's head that its parser does not have, applied before anything reads it.

They are functions of the parsed head alone. A request that breaks one of them is answered with the
problem that is returned, its body is not read, and its connection ends.
"""

import re
from typing import Final

from aiohttp import hdrs
from aiohttp.http import HttpVersion11, RawRequestMessage
from multidict import istr

from feedsvc.core.problems import (
    BadRequest,
    HeadersTooLarge,
    Problem,
    UnknownTransferCoding,
    UnsupportedContentCoding,
    UriTooLong,
)
from feedsvc.settings import Server

_A_LINE: Final = 4  # bytes of a header's line beside its name and its value
_A_REQUEST_LINE: Final = 16  # bytes of it beside the address, or a few more
# A name, an IPv4 address or an IPv6 address in brackets, with a port (RFC 9110, section 7.2).
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::\d*)?", re.ASCII)
# A list is read through once for each format that there is, so its length is bounded.
_LISTS: Final = (hdrs.ACCEPT, hdrs.ACCEPT_ENCODING)
_IDENTITY: Final = "identity"
_BLANKS: Final = 2  # in a request line
_CHUNKED: Final = "chunked"
_HOST_NAME: Final = istr("Host")


def size(message: RawRequestMessage) -> int:
    """Bytes of the head, near enough."""
    fields = sum(len(name) + len(value) + _A_LINE for name, value in message.raw_headers)
    return len(message.path) + _A_REQUEST_LINE + fields


def too_large(most: int) -> HeadersTooLarge:
    """The problem of a head that is longer than `most` bytes."""
    return HeadersTooLarge(f"The request's head is longer than {most} bytes.")


def fault(message: RawRequestMessage, settings: Server, *, has_body: bool) -> Problem | None:
    """The problem that the head is to be answered with; None where there is none."""
    fields = message.headers
    if len(message.path) > settings.max_path and _path_size(message.path) > settings.max_path:
        return UriTooLong(f"The address's path is longer than {settings.max_path} bytes.")
    if _HOST.fullmatch(fields.get(_HOST_NAME, "")) is None:
        return BadRequest("The Host header names no host.")
    if len(fields.getall(hdrs.AUTHORIZATION, ())) > 1:
        return BadRequest("There is more than one Authorization header.")
    for name in _LISTS:
        if sum(map(len, fields.getall(name, ()))) > settings.max_accept:
            most = f"longer than {settings.max_accept} bytes"
            return HeadersTooLarge(f"{name} is {most}, in all of its lines together.")
    return _fault_of_the_framing(message) or (_fault_of_the_body(message) if has_body else None)


def _path_size(target: str) -> int:
    return len(target.partition("?")[0])


def _fault_of_the_framing(message: RawRequestMessage) -> Problem | None:
    coding = message.headers.get(hdrs.TRANSFER_ENCODING)
    if coding is None:
        return None
    if message.version != HttpVersion11:
        return BadRequest("HTTP/1.0 has no Transfer-Encoding.")
    return None if coding.lower() == _CHUNKED else UnknownTransferCoding()


def _fault_of_the_body(message: RawRequestMessage) -> Problem | None:
    # Inflating a body costs a thousand times what sending it does, and nothing here needs it.
    codings = ",".join(message.headers.getall(hdrs.CONTENT_ENCODING, ())).split(",")
    if all(coding.strip().lower() in ("", _IDENTITY) for coding in codings):
        return None
    return UnsupportedContentCoding()


def fault_of_the_line(head: bytes) -> Problem | None:
    """As `fault`, of the request line, which single blanks divide (RFC 9112, section 3)."""
    head = head.lstrip(b"\r\n")
    line = head[: head.find(b"\r\n")]
    if line.count(b" ") == line.strip().count(b" ") == _BLANKS:
        return None
    return BadRequest("The request line is not HTTP as RFC 9112 has it.")


def holds_long_token(head: bytes, limit: int) -> bool:
    """Return whether the header that is longer than the limit is the one with the token.

    The exception has nothing but the beginning of the value.
    """
    for line in head.split(b"\n"):
        name, _, value = line.partition(b":")
        if len(name) + len(value.strip()) > limit:
            return name.lower() == b"authorization"
    return False
