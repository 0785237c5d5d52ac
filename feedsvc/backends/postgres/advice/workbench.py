"""A place where indexes can be tried: their cost is the planner's, and nothing stays."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from feedsvc.backends.postgres.advice.designs import IndexDesign
from feedsvc.backends.postgres.advice.model import Proof, WorkloadStatement


@dataclass(frozen=True, slots=True)
class Planned:
    """A statement's cost on the workbench, the designs and the existing indexes that it uses."""

    cost: float
    designs: frozenset[IndexDesign]
    existing: frozenset[str]


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
