"""Values of a statement: parameters as text, cast to their column's base type, or literals."""

from collections.abc import Sequence
from typing import Protocol

from feedsvc.datasets.dataset import Column
from feedsvc.feeds.sql.quoting import literal


class Values(Protocol):
    """The values of a query, each as SQL that stands for it."""

    def scalar(self, value: str, column: Column) -> str:
        """A value of the column's base type."""
        ...

    def text(self, value: str) -> str:
        """A text."""
        ...

    def array(self, values: Sequence[str], column: Column) -> str:
        """An array of the column's base type."""
        ...


class Arguments:
    """Values as placeholders, with the arguments behind them."""

    def __init__(self) -> None:
        self.values: list[str | list[str]] = []
        self._placeholders: list[str] = []

    def scalar(self, value: str, column: Column) -> str:
        return self._add(value, f"text::{column.base}")

    def text(self, value: str) -> str:
        return self._add(value, "text")

    def array(self, values: Sequence[str], column: Column) -> str:
        return self._add(list(values), f"text[]::{column.base}[]")

    def count(self, value: int) -> str:
        """A number of rows."""
        return self._add(str(value), "text::bigint")

    def selected(self) -> str:
        """A SELECT of the values, and of nothing that they are compared with."""
        return f"SELECT {', '.join(self._placeholders)}"

    def _add(self, value: str | list[str], cast: str) -> str:
        self.values.append(value)
        self._placeholders.append(f"${len(self.values)}::{cast}")
        return self._placeholders[-1]


class Literals:
    """Writes values where others have placeholders.

    Each is a constant of its type when the plan is made. A setting, read by `current_setting`,
    would be one value as much, but is read anew for every row that it is compared with.
    """

    def scalar(self, value: str, column: Column) -> str:
        return f"{literal(value)}::{column.base}"

    def text(self, value: str) -> str:
        return f"{literal(value)}::text"

    def array(self, values: Sequence[str], column: Column) -> str:
        listed = ", ".join(self.scalar(value, column) for value in values)
        return f"ARRAY[{listed}]::{column.base}[]"
