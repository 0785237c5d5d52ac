"""The search for the indexes of a workload: all candidates at once, then fewer of them.

With every candidate there, the planner picks for each statement what suits it best: no statement
can be better off. From there designs are taken away while statements stay within a tenth of that:
so an index for two statements replaces two, and what saves a trifle isn't proposed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from feedsvc.backends.postgres.advice.designs import IndexDesign
from feedsvc.backends.postgres.advice.model import WorkloadStatement
from feedsvc.backends.postgres.advice.workbench import Planned, Workbench

_TOLERANCE: Final = 0.10  # over the best cost
WORTH: Final = 0.15  # of a statement's cost that a design has to save
_LEAST: Final = (
    5.0  # units of cost that it has to save: a page that is read at random, and its rows
)
_OVERHEAD: Final = (
    65_536  # bytes that an index costs besides its size: it has to be written and kept
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The designs that are worth having, and each statement's plan without and with them."""

    designs: tuple[IndexDesign, ...]
    sizes: Mapping[IndexDesign, int]
    before: Mapping[str, Planned]
    after: Mapping[str, Planned]
    without: Mapping[IndexDesign, Mapping[str, float]]
    """Costs of the statements that use a design, in its absence."""
    beyond_budget: tuple[IndexDesign, ...]
    """Designs that the budget leaves no room for."""
    untried: frozenset[IndexDesign]
    """Designs that the workbench can't try."""


@dataclass(slots=True)
class Search:
    """A search on one workbench."""

    bench: Workbench
    statements: Sequence[WorkloadStatement]
    budget: int | None = None
    """Bytes of all designs together."""
    progress: Callable[[str], None] = lambda _: None
    _before: dict[str, Planned] = field(default_factory=dict)
    _goal: dict[str, float] = field(default_factory=dict)
    _now: dict[str, Planned] = field(default_factory=dict)
    _sizes: dict[IndexDesign, int] = field(default_factory=dict)
    _there: list[IndexDesign] = field(default_factory=list)

    async def run(self, designs: Sequence[IndexDesign]) -> Chosen:
        """The best of the designs for the statements that can be planned."""
        self._before = await self._plans(self.statements)
        self._there = [design for design in designs if await self.bench.add(design)]
        untried = frozenset(designs).difference(self._there)
        await self.bench.settle()
        for design in self._there:
            self._sizes[design] = await self.bench.size(design)
        self._now = await self._plans(self.statements)
        self._goal = {
            name: goal
            for name, plan in self._now.items()
            if plan.designs and (goal := self._aim(self._before[name].cost, plan.cost)) is not None
        }
        tables = {design.table for design in self._used()}
        await self._keep({each for each in self._there if each.table in tables})
        await self._take_away()
        await self._keep(self._used())
        self._now = await self._plans(self.statements)
        await self._take_away()
        await self._keep(self._used())
        self._now = await self._plans(self.statements)
        beyond = await self._within_budget()
        return Chosen(
            tuple(self._there), self._sizes, self._before, self._now,
            {design: await self._costs_without(design) for design in self._there}, beyond,
            untried,
        )  # fmt: skip

    def _aim(self, before: float, best: float) -> float | None:
        """The cost that a statement may have; None where there is not much to be saved."""
        is_worth = before - best >= max(WORTH * before, _LEAST)
        return best * (1 + _TOLERANCE) if is_worth else None

    async def _keep(self, designs: set[IndexDesign]) -> None:
        for design in [each for each in self._there if each not in designs]:
            await self._remove(design)

    async def _take_away(self) -> None:
        """Take designs away, the largest first, as long as that makes the rest smaller."""
        is_changed = True
        while is_changed:
            is_changed = False
            for design in sorted(self._used(), key=lambda each: -self._sizes[each]):
                is_changed |= await self._try_without(design)

    async def _try_without(self, design: IndexDesign) -> bool:
        users = self._users(design)
        if not users:
            return False
        async with self.bench.without(design):
            plans = await self._plans(users)
        is_good = all(plan.cost <= self._goal[name] * 1.0001 for name, plan in plans.items())
        left = self._used({**self._now, **plans})
        if not is_good or self._weight(left) >= self._weight(self._used()):
            return False
        await self._remove(design)
        self._now |= plans
        return True

    async def _within_budget(self) -> tuple[IndexDesign, ...]:
        """Leave out the designs that save the least for a byte, then look back for what fits."""
        left_out: list[IndexDesign] = []
        if self.budget is None:
            return ()
        while self._there and sum(self._sizes[each] for each in self._there) > self.budget:
            savings = {each: await self._saving(each) for each in self._there}
            worst = min(self._there, key=lambda each: savings[each] / max(self._sizes[each], 1))
            left_out.append(worst)
            await self._remove(worst)
            self._now |= await self._plans(self.statements)
        for design in reversed(left_out):
            total = sum(self._sizes[each] for each in self._there)
            if total + self._sizes[design] <= self.budget and await self.bench.add(design):
                self._there.append(design)
        self._now |= await self._plans(self.statements)
        return tuple(each for each in left_out if each not in self._there)

    async def _saving(self, design: IndexDesign) -> float:
        calls: dict[str, int] = {each.name: max(each.calls, 1) for each in self.statements}
        costs = await self._costs_without(design)
        return sum((cost - self._now[name].cost) * calls[name] for name, cost in costs.items())

    async def _costs_without(self, design: IndexDesign) -> dict[str, float]:
        async with self.bench.without(design):
            plans = await self._plans(self._users(design))
        return {name: plan.cost for name, plan in plans.items()}

    async def _remove(self, design: IndexDesign) -> None:
        await self.bench.remove(design)
        self._there.remove(design)

    async def _plans(self, statements: Sequence[WorkloadStatement]) -> dict[str, Planned]:
        found = {each.name: await self.bench.plan(each) for each in statements}
        return {name: plan for name, plan in found.items() if plan is not None}

    def _users(self, design: IndexDesign) -> list[WorkloadStatement]:
        return [
            each
            for each in self.statements
            if each.name in self._goal and design in self._now[each.name].designs
        ]

    def _used(self, plans: Mapping[str, Planned] | None = None) -> set[IndexDesign]:
        """The designs that statements use which are to be better off."""
        plans = self._now if plans is None else plans
        return {design for name in self._goal for design in plans[name].designs}

    def _weight(self, designs: set[IndexDesign]) -> int:
        return sum(self._sizes[each] + _OVERHEAD for each in designs)
