"""Templates of tags, by which a change puts cached pages out of date (`feedsvc.cache.items`).

A dataset names templates, `clients:{tenant_id}`, and a changed row fills in each of them.
"""

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

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

    def renamed(self, names: Mapping[str, str]) -> "Template | None":
        """The template with its columns called otherwise, None where a name is not known or odd."""
        found = [names.get(column) for column in self.columns]
        if any(name is None or {"{", "}"} & {*name} for name in found):
            return None
        text = _PLACEHOLDER.sub(lambda placeholder: "{" + names[placeholder[1]] + "}", self.text)
        return Template.parse(text)

    def fill(self, values: Mapping[str, str]) -> str | None:
        """The tag for these values, None where one is missing."""
        if not self.columns:
            return self.text
        if not all(column in values for column in self.columns):
            return None
        return _PLACEHOLDER.sub(lambda found: values[found[1]], self.text)


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
