"""Tags, by which a change invalidates cached pages.

A dataset names templates, `clients:{tenant_id}`. A changed row fills in each of them, and every
tag that comes of it is sent as *exact*: pages whose narrowest tag it is are out of date. A change
that is wider than single rows (a TRUNCATE, an operator's request) is sent as *all under* a tag:
every page that carries the tag at all.

A page carries the tags that its request pins down: its tenant, its client, what it compares with
`eq`. So a row of one client invalidates that client's pages and its supplier's, and no other's.
"""

import hashlib
import re
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

DIGEST_BYTES: Final = 9
"""Bytes of a tag's SHA-256 in NOTIFY. Two equal ones cost a reload, no more."""

_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Template:
    """A tag with `{column}` where a row's value goes."""

    text: str
    columns: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """The template that the text is. Raises ValueError."""
        columns = tuple(_PLACEHOLDER.findall(text))
        rest = _PLACEHOLDER.sub("", text)
        if not text or "{" in rest or "}" in rest or "" in columns:
            raise ValueError("a tag is text in which {column} stands for a row's value")
        return cls(text, columns)

    def parts(self) -> list[tuple[str, str | None]]:
        """The text before each column, with the column; the text behind the last one with None."""
        pieces = _PLACEHOLDER.split(self.text)
        return [(pieces[i], (pieces[i + 1 : i + 2] or [None])[0]) for i in range(0, len(pieces), 2)]

    def fill(self, values: Mapping[str, str]) -> str | None:
        """The tag for these values, None where one is missing."""
        if not self.columns:
            return self.text
        if not all(column in values for column in self.columns):
            return None
        return _PLACEHOLDER.sub(lambda found: values[found[1]], self.text)


def lookup_items(templates: Iterable[Template], pinned: Mapping[str, str]) -> tuple[str, ...]:
    """The notices that invalidate a page whose rows all have these values.

    One of the templates has no columns, so there is always one item. Of two that name as many
    the later one is taken for the narrower.
    """
    filled = [(len(t.columns), tag) for t in templates if (tag := t.fill(pinned)) is not None]
    _, narrowest = max(reversed(filled), key=lambda item: item[0])
    return (exactly(narrowest), *(all_under(tag) for _, tag in filled))


def exactly(tag: str) -> str:
    """The item of changes to rows that have this tag."""
    return f"={digest(tag)}"


def all_under(tag: str) -> str:
    """The item of a change to all pages with this tag."""
    return f"*{digest(tag)}"


@lru_cache(4_096)
def digest(tag: str) -> str:
    """The tag as it goes through NOTIFY, 12 characters; the triggers work it out in SQL."""
    hashed = hashlib.sha256(tag.encode(errors="surrogatepass")).digest()
    return b64encode(hashed[:DIGEST_BYTES]).decode()


# Types of which two equal values have one text, whatever the session's settings.
_TEXT_OF: Final[dict[str, Callable[[str], str]]] = {
    "int2": lambda value: str(int(value)),
    "int4": lambda value: str(int(value)),
    "int8": lambda value: str(int(value)),
    "uuid": lambda value: str(uuid.UUID(value)),
    "text": str,
    "varchar": str,
}


def text_of(kind: str, category: str) -> Callable[[str], str] | None:
    """The function that gives PostgreSQL's own text, None where equal values have several.

    `kind` and `category` are the type's in `pg_type`. Only such types can stand in a template.
    """
    return str if category == "E" else _TEXT_OF.get(kind)
