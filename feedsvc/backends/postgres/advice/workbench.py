"""A place where indexes can be tried: their cost is the planner's, and nothing stays."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from feedsvc.backends.postgres.advice.designs import IndexDesign
from feedsvc.backends.postgres.advice.model import Proof, WorkloadStatement

_ALONE: Final = frozenset({"gin", "gist"})


@dataclass(frozen=True, slots=True)
class Planned:
    """A statement's cost on the workbench, and the designs that it uses."""

    cost: float
    designs: frozenset[IndexDesign]


class Workbench(Protocol):
    """Tables on which designs are tried. Between calls, those that were added are there."""

    @property
    def proof(self) -> Proof:
        """The proof that its costs are."""

    async def add(self, design: IndexDesign) -> bool:
        """Try a design; False where it can't be tried, or PostgreSQL refuses it."""

    async def settle(self) -> None:
        """Make ready for plans, after designs were added."""

    def without(self, design: IndexDesign) -> AbstractAsyncContextManager[None]:
        """The same without one of them, for a block."""

    async def remove(self, design: IndexDesign) -> None:
        """Take a design away for good."""

    async def plan(self, statement: WorkloadStatement) -> Planned | None:
        """The statement's plan with all designs that are there; None if there is none."""

    async def write_cost(self, design: IndexDesign) -> float | None:
        """Pages that a row's entry touches; None of a table without rows."""

    async def size(self, design: IndexDesign) -> int:
        """Bytes that the design would take on the whole table."""

    def is_whole(self, design: IndexDesign) -> bool:
        """Return whether costs are those of all rows of the design's table."""


def used_designs(
    top: Mapping[str, Any], designs: Mapping[str, IndexDesign]
) -> frozenset[IndexDesign]:
    """The designs that a plan uses, of those by the names that it has for them.

    In a BitmapAnd a btree is a trifle beside the others, and doesn't count.
    """
    return frozenset(
        design
        for name, is_beside in _indexes(top, is_beside=False)
        if (design := designs.get(name)) and not (is_beside and design.method not in _ALONE)
    )


def _indexes(node: Mapping[str, Any], *, is_beside: bool) -> Iterator[tuple[str, bool]]:
    """The indexes of a plan, and whether a BitmapAnd puts each beside others."""
    if "Index Name" in node:
        yield node["Index Name"], is_beside
    for child in node.get("Plans", ()):
        yield from _indexes(child, is_beside=is_beside or node["Node Type"] == "BitmapAnd")
