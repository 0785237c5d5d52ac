"""An index that may come to be."""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal, TypeAlias

from feedsvc.backends.postgres.advice.deparsed import quoted

Method: TypeAlias = Literal["btree", "brin", "gin", "gist"]

_LONGEST: Final = 63  # bytes of an identifier
_WORDS: Final = 4


@dataclass(frozen=True, slots=True)
class IndexDesign:
    """An index of a table, as SQL has its parts."""

    table: str
    """`schema.name`, as it is."""
    quoted: str
    """The same, quoted where it must be."""
    method: Method
    keys: tuple[str, ...]
    """Columns, or expressions in parentheses, with operator class and direction."""
    included: tuple[str, ...] = ()
    predicate: str = ""
    options: str = ""

    @property
    def name(self) -> str:
        """A name from its table, columns and kind, the same each time."""
        table = self.table.partition(".")[2]
        words = [re.sub(r"\W+", "_", re.sub(r"'[^']*'|::\w+", "", key)) for key in self.keys]
        words = [word.strip("_").lower() for word in words]
        kind = {"btree": ""}.get(self.method, self.method)
        parts = [table, *words[:_WORDS], kind]
        mark = sha256(self.body.encode()).hexdigest()[:6]
        plain = re.sub(r"\W", "_", "_".join(part for part in parts if part))
        shortened = plain.encode()[: _LONGEST - 7].decode(errors="ignore")
        return f"{shortened}_{mark}".lower()

    @property
    def has_expressions(self) -> bool:
        """Return whether a key is more than a column."""
        return any("(" in key for key in self.keys)

    @property
    def body(self) -> str:
        """The part behind the table's name."""
        text = f"USING {self.method} ({', '.join(self.keys)})"
        if self.included:
            text += f" INCLUDE ({', '.join(self.included)})"
        if self.options:
            text += f" WITH ({self.options})"
        if self.predicate:
            text += f" WHERE {self.predicate}"
        return text

    def sql(self, *, concurrently: bool = True, table: str | None = None) -> str:
        """The statement that makes it, of another table if one is given."""
        words = ["CREATE INDEX"]
        words += ["CONCURRENTLY"] if concurrently else []
        words += [quoted(self.name)]
        return f"{' '.join(words)} ON {table or self.quoted} {self.body}"

    @property
    def qualified(self) -> str:
        """Its name with its schema, as plans name it."""
        return f"{self.table.partition('.')[0]}.{self.name}"

    @property
    def drop(self) -> str:
        """The statement that removes it again."""
        schema = re.sub(r'^("(?:[^"]|"")*"|[^.]+).*$', r"\1", self.quoted)
        return f"DROP INDEX CONCURRENTLY IF EXISTS {schema}.{quoted(self.name)}"
