"""Each `down` restores the schema as it was, by pg_dump."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from feedsvc.backends.postgres.migrations import runner
from feedsvc.backends.postgres.migrations.lines import TERRITORIES, MigrationLine
from feedsvc.backends.postgres.migrations.revisions import Revision, revisions
from feedsvc.commands.demo.embedded import cache_folder
from feedsvc.commands.demo.embedded.account import server_account
from feedsvc.commands.demo.embedded.binaries import find_postgres

if TYPE_CHECKING:
    from collections.abc import Sequence


RESTORED_FROM = {"wedding": 3}
"""On the way down from 0003 row-level security stays on, on purpose, until the tables go."""


def dumped(dsn: str) -> list[str]:
    """The schema as pg_dump writes it, without the key that it draws for each dump."""
    binaries = find_postgres(server_account(), cache_folder())
    command = [str(binaries.folder / "pg_dump"), "--schema-only", dsn]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return [line for line in done.stdout.splitlines() if "restrict " not in line]


def stages(known: Sequence[Revision]) -> list[int]:
    """The numbers of revisions behind each that is no index, and behind each run of indexes."""
    return [
        count
        for count in range(1, len(known) + 1)
        if count == len(known) or known[count - 1].index is None or known[count].index is None
    ]


@pytest.mark.parametrize("line", ["service", "wedding"])
async def test_each_way_down_restores_the_schema(
    database: str, line: MigrationLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = revisions(TERRITORIES[line])
    empty = dumped(database)
    after: dict[int, list[str]] = {}
    for count in stages(known):
        monkeypatch.setattr(runner, "revisions", lambda _, first=known[:count]: first)
        await runner.up(database, line)
        after[count] = dumped(database)
    monkeypatch.undo()
    for count in reversed([*after][:-1]):
        await runner.down(database, line, to=known[count - 1].number)
        if count >= RESTORED_FROM.get(line, 0):
            assert dumped(database) == after[count]
    await runner.down(database, line)
    assert dumped(database) == empty
