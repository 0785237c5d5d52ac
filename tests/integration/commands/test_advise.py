"""`feedsvc advise` as a command: what it prints, its exit status, and what it makes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.integration.commands.test_check import environment
from tests.support.forked import feedsvc
from tests.support.servers import TEMPLATE, as_login, copied_database

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator
    from pathlib import Path

CATALOGUE = """\
-- query: client_by_email
-- about: An e-mail's client.
-- tier: critical
-- as: office
-- uses: clients_email
SELECT * FROM wedding.clients WHERE tenant_id = $1 AND lower(email) = $2;

-- query: client_by_key
-- about: One client.
-- tier: critical
-- as: office
-- uses: clients_pkey
SELECT * FROM wedding.clients WHERE tenant_id = $1 AND id = $2 AND email <> 'zebra';

-- query: clients_by_chance
-- about: All clients, for a draw.
-- tier: analytics
-- as: office
-- uses: clients_pkey
SELECT * FROM wedding.clients ORDER BY random();

-- query: draws
-- about: A draw.
-- tier: critical
-- as: office
-- uses: none
SELECT * FROM wedding.draws WHERE number = $1;
"""
FIELDS = {
    *("name", "source", "statement", "calls", "total_ms", "mean_ms", "p95_ms", "rows", "score"),
    *("cost", "findings", "plan", "unplanned", "proposals"),
}
OF_A_PROPOSAL = {
    *("kind", "statement", "proof", "cost_before", "cost_after", "size_bytes", "write_cost"),
    *("helps", "harms", "reason"),
}


class Advised:
    """A world without `clients_email`, and a catalogue whose query needs it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder

    def run(
        self, *arguments: str, url: str | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        nothing = {"FEEDSVC_DATASETS__FILE": str(self.folder / "none.toml")}
        env = environment(url or self.url, **nothing, **variables)
        return feedsvc("advise", "--catalogue", str(self.folder), *arguments, env=env)


@pytest.fixture
async def advised(admin_url: str, tmp_path: Path) -> AsyncIterator[Advised]:
    (tmp_path / "clients.sql").write_text(CATALOGUE)
    async with copied_database(admin_url, TEMPLATE) as url:
        connection = await asyncpg.connect(url)
        await connection.execute("ANALYZE wedding.clients; DROP INDEX wedding.clients_email")
        await connection.execute(
            "CREATE TABLE wedding.draws WITH (autovacuum_enabled = false)"
            " AS SELECT n AS number FROM generate_series(1, 100) AS n"
        )
        name = urlsplit(url).path[1:]
        await connection.execute(f"ALTER DATABASE {name} SET work_mem = '256kB'")
        await connection.close()
        yield Advised(url, tmp_path)


async def test_an_index_is_proposed_made_and_proposed_no_more(advised: Advised) -> None:
    said = advised.run()
    assert said.returncode == 0, said.stderr
    analyzed, _, first = said.stdout.splitlines()[:3]
    assert analyzed == "ANALYZE wedding.draws;"
    assert first.startswith("CREATE INDEX CONCURRENTLY clients_tenant_id_lower_email_")
    assert first.endswith("ON wedding.clients USING btree (tenant_id, (lower(email)));")
    assert "client_by_email: cost" in said.stdout
    assert "client_by_email: score" in said.stdout

    found: dict[str, Any] = json.loads(advised.run("--json").stdout)
    by_name = {each["name"]: each for each in found["statements"]}
    [proposal] = [each for each in found["proposals"] if each["kind"] == "index"]
    assert all(each.keys() == FIELDS for each in found["statements"])
    assert proposal.keys() == OF_A_PROPOSAL
    assert proposal["proof"] == "sample"
    assert proposal["helps"] == ["client_by_email"]
    assert proposal["size_bytes"] > 0
    assert proposal["write_cost"] > 1
    costs = proposal["cost_before"], proposal["cost_after"]
    assert costs[0]["client_by_email"] > 2 * costs[1]["client_by_email"]
    [setting] = [each for each in found["proposals"] if each["kind"] == "setting"]
    assert setting["statement"] == "ALTER ROLE postgres SET work_mem = '4MB'"
    assert setting["helps"] == ["clients_by_chance"]
    assert f"{setting['statement']};" in said.stdout
    assert by_name["client_by_email"]["proposals"] == [proposal["statement"]]
    assert by_name["client_by_email"]["plan"]["node"] == "0"
    assert by_name["client_by_key"]["score"] == 100
    assert "zebra" not in said.stdout + json.dumps(found)

    assert advised.run("--fail-on", "index", "--scratch", "Odd one").returncode == 1
    made = advised.run("--create", "--fail-on", "index")
    assert made.returncode == 1  # of what was missing when it looked
    assert made.stderr.splitlines()[-1] == f"{proposal['statement']}: made, and used"
    again = advised.run("--fail-on", "index")
    assert (again.returncode, again.stderr) == (0, "")
    assert "CREATE INDEX" not in again.stdout


async def test_a_login_without_rights_and_a_database_that_is_away_are_a_sentence(
    advised: Advised,
) -> None:
    reader = as_login(advised.url)
    unsure = advised.run("--fail-on", "index", url=reader)
    assert unsure.returncode == 1
    assert unsure.stderr.startswith("feedsvc: no index could be tried")
    said = advised.run(url=reader, FEEDSVC_ADVISE__SCRATCH="own_one").stdout
    assert 'not seen: indexes can\'t be tried: the login may not make "own_one"' in said
    assert "not seen: statistics of wedding.clients are hidden from this login" in said
    assert "ANALYZE" not in said
    away = advised.run(url="postgresql://someone:hidden@127.0.0.1:1/there")
    assert away.returncode == 1
    [line] = away.stderr.splitlines()
    assert line.startswith("feedsvc: PostgreSQL of MIGRATION_DATABASE_URL, or DATABASE_URL, can't")
    assert "hidden" not in line
