"""Rules for a request's head that its parser does not have, applied before anything reads it.

They are functions of the parsed head alone. A request that breaks one of them is answered with the
problem that is returned, its body is not read, and its connection ends.
"""

from typing import Final

from aiohttp import hdrs
from aiohttp.http import RawRequestMessage

from feedsvc.errors import Problem, UnsupportedContentCoding

_IDENTITY: Final = "identity"


def fault(message: RawRequestMessage, *, has_body: bool) -> Problem | None:
    """The problem that the head is to be answered with; None where there is none."""
    return _fault_of_the_body(message) if has_body else None


def _fault_of_the_body(message: RawRequestMessage) -> Problem | None:
    # Inflating a body costs a thousand times what sending it does, and nothing here needs it.
    codings = ",".join(message.headers.getall(hdrs.CONTENT_ENCODING, ())).split(",")
    if all(coding.strip().lower() in ("", _IDENTITY) for coding in codings):
        return None
    return UnsupportedContentCoding()
