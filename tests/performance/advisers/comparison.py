"""What each adviser proposes for a workload, built for real, and what the workload costs then."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import asyncpg

from feedsvc.backends.postgres.advice.designs import IndexDesign
from feedsvc.backends.postgres.advice.model import WorkloadStatement
from feedsvc.backends.postgres.advice.proposals import AdviceOptions, proposals
from feedsvc.backends.postgres.index_proof.plans import undone
from tests.performance.advisers.dexter import Dexter
from tests.performance.advisers.index_advisor import index_advisor
from tests.performance.advisers.trials import Planner, built, bytes_of, without_values

OURS: Final = "feedsvc"
FIFTH: Final = 1.2


@dataclass(frozen=True, slots=True)
class Subject:
    """A database with a workload: statements without values, and their costs with values."""

    connection: asyncpg.Connection
    statements: Sequence[WorkloadStatement]
    with_values: Planner
    costs: Callable[[], Awaitable[Mapping[str, float]]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """An adviser's indexes, and the cost of each statement with them."""

    indexes: int
    kib: int
    costs: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.costs.values())

    def dearer(self, others: Mapping[str, float]) -> list[str]:
        """The statements that cost over a fifth more than these costs."""
        return [name for name, cost in self.costs.items() if cost > FIFTH * others[name]]


Adviser: TypeAlias = Callable[[Subject], Awaitable[list[IndexDesign]]]


async def _ours(subject: Subject) -> list[IndexDesign]:
    found = await proposals(subject.connection, subject.statements, AdviceOptions())
    return [design for _, design in found.proposals if design is not None]


async def _index_advisor(subject: Subject) -> list[IndexDesign]:
    return await index_advisor(subject.connection, subject.statements)


async def _dexter(subject: Subject) -> list[IndexDesign]:
    plan = without_values(subject.connection)
    return await Dexter(subject.connection, plan).propose(subject.statements)


async def _dexter_of_all(subject: Subject) -> list[IndexDesign]:
    dexter = Dexter(subject.connection, subject.with_values, min_cost=0.0)
    return await dexter.propose(subject.statements)


ADVISERS: Final[Mapping[str, Adviser]] = {
    OURS: _ours,
    "index_advisor": _index_advisor,
    "Dexter": _dexter,
    "Dexter, all with values": _dexter_of_all,
}


async def outcomes(subject: Subject) -> dict[str, Outcome]:
    """The outcome of each adviser on the same database, one after the other."""
    return {name: await _outcome(subject, adviser) for name, adviser in ADVISERS.items()}


async def _outcome(subject: Subject, adviser: Adviser) -> Outcome:
    designs = await adviser(subject)
    async with undone(subject.connection):
        made = set((await built(subject.connection, designs)).values())
        assert made == set(designs)
        await subject.connection.execute("ANALYZE")
        size = await bytes_of(subject.connection, designs)
        return Outcome(len(designs), size >> 10, await subject.costs())


def beaten(found: Mapping[str, Outcome]) -> Iterator[str]:
    """Sentences on the statements that cost over a fifth less with another's indexes than ours."""
    ours = found[OURS]
    for adviser, each in found.items():
        for name in ours.dearer(each.costs):
            yield f"{adviser}: `{name}` {each.costs[name]:,.0f}, with ours {ours.costs[name]:,.0f}"
