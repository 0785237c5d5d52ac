"""The workload of `feedsvc advise`: what the service has counted weighs, and is in the text."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

import pytest

from feedsvc.backends.postgres.advice.model import (
    Advice,
    Proposal,
    StatementAdvice,
    WorkloadStatement,
)
from feedsvc.backends.postgres.advice.proposals import Workload
from feedsvc.commands.advice_text import lines
from feedsvc.commands.advice_workload import WorkloadSources
from feedsvc.commands.advise import ranked
from feedsvc.operations.performance.figures import Figures
from tests.support.servers import TEMPLATE, connected, copied_database

if TYPE_CHECKING:
    from pathlib import Path

NAME: Final = "clients page order=id filter=email.eq"
DATASETS: Final = """
[clients]
relation = "wedding.clients"
key = ["id"]
tenant = "tenant_id"
filters = {email = ["eq"], id = ["in"]}
"""
ADD: Final = "INSERT INTO feedsvc.performance (id, at, seconds, figures) VALUES ($1, now(), 60, $2)"


async def test_what_the_service_has_counted_is_part_of_it(admin_url: str, tmp_path: Path) -> None:
    file = tmp_path / "datasets.toml"
    file.write_text(DATASETS)
    figures = Figures()
    figures.sketch(("statement", NAME)).add(0.25, 40)
    figures.add(("statement_rows", NAME), 80)
    for name, number in (("repeats", 100), ("repeat_runs", 2), ("repeat_seconds", 1.5)):
        figures.add((name, "clients", "row-by-key", ""), number)
    sources = WorkloadSources(file, None, "reader", 3_600, "feedsvc")
    async with copied_database(admin_url, TEMPLATE) as url, connected(url) as owner:
        nothing = await sources.read(owner)
        await owner.execute(ADD, uuid.uuid4(), figures.pack())
        found = await sources.read(owner)
    assert "the service has counted no statement in that time" in nothing.lacking
    assert [each.name for each in nothing.statements] == ["clients order=key", "clients email="]
    (own,) = (each for each in found.statements if each.source == "feedsvc")
    assert (own.name, own.calls, own.rows, own.role) == (NAME, 40, 80, "reader")
    assert own.p95_ms == pytest.approx(250, rel=0.02)
    assert '"email" = $2' in own.sql
    text = "\n".join(lines(Advice(()), found.repeated))
    assert "row-by-key, 100 requests of 2 runs, 1,500 ms lost" in text
    assert "  GET /v1/feeds/clients?id.in={id},{id},…" in text


def read(name: str, calls: int) -> StatementAdvice:
    statement = WorkloadStatement(name, "SELECT", "feedsvc", calls, calls * 1.0, 1.0, 2.0, 0)
    return StatementAdvice(statement, None, (), 100)


def index(name: str, **costs: Any) -> tuple[Proposal, None]:
    before, after = costs["before"], costs["after"]
    harms = tuple(each for each in before if after[each] > before[each])
    helps = tuple(each for each in before if each not in harms)
    return Proposal("index", name, "sample", before, after, None, None, helps, harms, "why"), None


def test_indexes_are_ranked_by_what_they_save_in_all_calls() -> None:
    dear = index("dear and rare", before={"rare": 900.0}, after={"rare": 1.0})
    cheap = index(
        "cheap and frequent",
        before={"frequent": 20.0, "other": 5.0},
        after={"frequent": 8.0, "other": 6.0},
    )
    unused = index("never sent", before={"unknown": 700.0}, after={"unknown": 1.0})
    statements = [read("rare", 2), read("frequent", 1_000), read("unknown", 0)]
    found = ranked(statements, Workload((unused, dear, cheap), ()), [])
    assert [each.statement for each in found.proposals] == [
        "cheap and frequent",
        "dear and rare",
        "never sent",
    ]
    text = list(lines(found, []))
    assert "  why (sample, 1,000 calls)" in text
    assert "  why (sample, no calls)" in text
    assert "  other: cost 5, with it 6, which is worse" in text
    assert "frequent: score 100, 1,000 calls of 1.0 ms (p95 2.0)" in text
