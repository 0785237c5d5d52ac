"""A value in the text of a statement, for COPY, whose protocol has no parameters.

Whatever is not plainly harmless is written by its number, so that there is no quote, backslash or
line end of the value's own that would have to be doubled or could be forgotten.
"""

import re
from typing import Final

_OTHERS: Final = re.compile(r"[^A-Za-z0-9 +.:_-]")


def literal(value: str) -> str:
    r"""The value as a constant of unknown type, which a cast makes one of its own.

    PostgreSQL's documentation, section 4.1.2.2: a string with C-style escapes means the same
    whatever `standard_conforming_strings` is, and `\UXXXXXXXX` is any character. Values are without
    NUL and lone surrogates (`literals.text`), which are no characters to PostgreSQL.
    """
    return f"E'{_OTHERS.sub(_escaped, value)}'"


def _escaped(found: re.Match[str]) -> str:
    return rf"\U{ord(found[0]):08x}"
