"""Settings of a login that cure what no index does: too little memory, and compilation.

Each is planned with before it is proposed. `random_page_cost` and `effective_cache_size` never are:
they change what a unit of cost is, so that a lower cost with them proves nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from math import ceil, floor, log10
from pathlib import Path
from typing import Final

import asyncpg

from feedsvc.backends.postgres.advice.model import Proposal, StatementAdvice
from feedsvc.backends.postgres.advice.reading import read_statement

_OWN: Final = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
_PRESENT: Final = """
    SELECT ARRAY[pg_size_bytes(coalesce($1, current_setting('work_mem')))::float8 / 1048576,
        coalesce($2, current_setting('hash_mem_multiplier'))::float8]
"""
_SIZES: Final = (4, 8, 16, 32, 64, 128, 256)  # MiB of work_mem
_MULTIPLIERS: Final = (4, 8)
_SPILLS: Final = frozenset({"spilling-sort", "spilling-hash"})


async def setting_proposals(
    connection: asyncpg.Connection, read: Iterable[StatementAdvice], login: str
) -> tuple[Proposal, ...]:
    """Settings for the logins that run these statements; `login` where no other is known.

    Raises asyncpg's errors where the connection is lost.
    """
    by_login: dict[str, list[StatementAdvice]] = {}
    for each in read:
        if each.plan is not None:
            by_login.setdefault(each.statement.login or login, []).append(each)
    found: list[Proposal | None] = []
    for name, statements in by_login.items():
        own = {row["name"]: row["value"] for row in await connection.fetch(_OWN, name)}
        quoted = await connection.fetchval("SELECT quote_ident($1)", name)
        trial = _Trial(connection, quoted, own, statements)
        found += [await trial.memory(), await trial.compilation()]
    return tuple(each for each in found if each is not None)


@dataclass(frozen=True, slots=True)
class _Trial:
    """The statements of one login, all of them planned, and planned anew with settings."""

    connection: asyncpg.Connection
    login: str
    own: Mapping[str, str]
    """Settings that the login has, and this connection need not have."""
    statements: Sequence[StatementAdvice]

    async def memory(self) -> Proposal | None:
        """The least memory with which the fewest sorts and hash tables go to files."""
        spilling = await self._faulty(_SPILLS)
        left, best = {each.statement.name for each in spilling}, ("", "")
        for setting in await self._amounts(spilling):
            tried = [await self._with(each, *setting) for each in spilling]
            still = {each.statement.name for each in tried if _has(each, _SPILLS)}
            if len(still) < len(left):
                left, best = still, setting
            if not still:
                break
        if not best[0]:
            return None
        before, after = await self._costs(*best)
        cured = {each.statement.name for each in spilling} - left
        return Proposal(
            "setting", self._statement(*best), "unproven", before, after, None, None,
            tuple(sorted(cured | {name for name in before if after[name] < before[name]})),
            tuple(sorted(name for name in before if after[name] > before[name])),
            f"statements that sort or hash in files: {len(spilling)}, with it {len(left)}; from"
            " its next login on each connection may take as much, more than once for a statement",
        )  # fmt: skip

    async def compilation(self) -> Proposal | None:
        """No compilation of what is as cheap as the statements that it hurts.

        Of nothing at all, where it hurts all that are compiled.
        """
        hurt = await self._faulty({"jit"})
        names = {each.statement.name for each in hurt}
        others = {
            each.statement.name: each.plan.cost
            for each in self.statements
            if each.plan is not None and each.plan.jit and each.statement.name not in names
        }
        above = _rounded(max((each.plan.cost for each in hurt if each.plan is not None), default=0))
        setting = ("jit_above_cost", f"{above}") if others else ("jit", "off")
        tried = [await self._with(each, *setting) for each in hurt]
        if not tried or any(each.plan is None or each.plan.jit for each in tried):
            return None
        return Proposal(
            "setting", self._statement(*setting), "unproven", {}, {}, None, None,
            tuple(sorted(names)), tuple(sorted(n for n, cost in others.items() if cost <= above)),
            f"statements that compilation (JIT) makes slower: {len(hurt)}, with it none; from its"
            " next login on",
        )  # fmt: skip

    async def _amounts(self, spilling: Sequence[StatementAdvice]) -> list[tuple[str, str]]:
        """Settings to be tried, the smallest first: of hash tables alone, unless a sort spills."""
        if not spilling:
            return []
        own = self.own.get("work_mem"), self.own.get("hash_mem_multiplier")
        present, times = await self.connection.fetchval(_PRESENT, *own)
        found = [("work_mem", f"{mib}MB") for mib in _SIZES if mib > present]
        if not any(_has(each, {"spilling-sort"}) for each in spilling):
            larger = [f"{each}" for each in _MULTIPLIERS if each > times]
            found = [*(("hash_mem_multiplier", each) for each in larger), *found]
        return found

    async def _faulty(self, codes: AbstractSet[str]) -> list[StatementAdvice]:
        """The statements with such a finding, with the login's own settings too."""
        found = [each for each in self.statements if _has(each, codes)]
        if self.own:
            found = [await self._with(each) for each in found]
        return [each for each in found if _has(each, codes)]

    async def _costs(self, name: str, value: str) -> tuple[dict[str, float], dict[str, float]]:
        """Costs without a setting and with it, of the statements for which they differ."""
        before: dict[str, float] = {}
        after: dict[str, float] = {}
        for each in self.statements:
            old, new = await self._with(each), await self._with(each, name, value)
            if old.plan is None or new.plan is None or old.plan.cost == new.plan.cost:
                continue
            before[each.statement.name] = old.plan.cost
            after[each.statement.name] = new.plan.cost
        return before, after

    async def _with(
        self, each: StatementAdvice, name: str = "", value: str = ""
    ) -> StatementAdvice:
        """A statement read with the login's settings, and one more."""
        settings = {**each.statement.settings, **self.own, **({name: value} if name else {})}
        return await read_statement(self.connection, replace(each.statement, settings=settings))

    def _statement(self, name: str, value: str) -> str:
        return f"ALTER ROLE {self.login} SET {name} = '{value}'"


def _has(each: StatementAdvice, codes: AbstractSet[str]) -> bool:
    return any(finding.code in codes for finding in each.findings)


def _rounded(cost: float) -> int:
    """The cost, up to the next number of one digit and zeros."""
    step: int = 10 ** floor(log10(max(cost, 1)))
    return ceil(cost / step) * step
