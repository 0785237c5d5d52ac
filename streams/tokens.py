"""Resume tokens: the place of a row in an order.

A token is the row's order columns and key as text, each percent-encoded (RFC 3986, section 2.1),
joined with `,`. The same string stands behind `after=`, in SSE ids, in `Link` and in a row's URL,
so the holder of the last row holds the token.
"""

import re
from collections.abc import Iterable
from urllib.parse import quote, unquote_to_bytes

_BROKEN_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def encode(parts: Iterable[str]) -> str:
    """The token of a row whose order columns and key are these texts."""
    return ",".join(quote(part, safe="") for part in parts)


def decode(token: str) -> tuple[str, ...]:
    """The texts that a token was made of.

    Raises ValueError where a percent sign is not followed by two hexadecimal digits, or where
    the bytes are not UTF-8.
    """
    if _BROKEN_PERCENT.search(token):
        raise ValueError("a percent sign must be followed by two hexadecimal digits")
    try:
        return tuple(unquote_to_bytes(part).decode() for part in token.split(","))
    except UnicodeError:
        raise ValueError("the percent-encoded bytes are not UTF-8") from None
