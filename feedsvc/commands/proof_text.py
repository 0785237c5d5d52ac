"""A proof of indexes as text, as JSON and as one page of HTML."""

from collections.abc import Iterator
from html import escape
from typing import Any, Final

import orjson

from feedsvc.backends.postgres.index_proof.catalogue import TIER_PAGES
from feedsvc.backends.postgres.index_proof.proof import Gain, IndexProof, QueryPlan
from feedsvc.backends.postgres.index_proof.report import ProofReport

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Indexes</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
color-scheme: light dark }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .2em .8em .2em 0;
border-bottom: 1px solid #8884 }
td.n { text-align: right; font-variant-numeric: tabular-nums }
li.wrong { color: #c33 }
</style>
"""


def lines(report: ProofReport) -> Iterator[str]:
    """A line for each index and, indented, each query that it serves; the faults last."""
    for proof in report.proofs:
        yield f"{proof.index.name}: {_about(proof)}"
        for gain in proof.gains:
            yield f"  {gain.query}: {_saved(gain)}"
    yield f"{report.proven} of {len(report.proofs)} indexes proven by {len(report.plans)} queries"
    yield from report.findings


def as_json(report: ProofReport) -> str:
    """One object: `indexes`, `queries` and `findings`."""
    document = {
        "indexes": [_index(proof) for proof in report.proofs],
        "queries": [_query(plan) for plan in report.plans],
        "findings": list(report.findings),
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def as_html(report: ProofReport) -> str:
    """A page without scripts: faults, indexes, queries."""
    faults = "".join(f'<li class="wrong">{escape(finding)}</li>' for finding in report.findings)
    proven = (
        f"{report.proven} of {len(report.proofs)} indexes proven by {len(report.plans)} queries"
    )
    parts = [
        _PAGE,
        f"<h1>Indexes</h1><p>{proven}.</p>",
        f"<ul>{faults or '<li>No findings.</li>'}</ul>",
        "<h2>Indexes</h2><table><tr><th>Index<th>Size, KiB<th>Pages a row written"
        "<th>Query<th>Cost<th>without it<th>Pages<th>without it</tr>",
        *(row for proof in report.proofs for row in _index_rows(proof)),
        "</table><h2>Queries</h2><table><tr><th>Query<th>Tier<th>Pages<th>allowed<th>ms"
        "<th>Indexes</tr>",
        *(_query_row(plan) for plan in report.plans),
        "</table></html>\n",
    ]
    return "\n".join(parts)


def _about(proof: IndexProof) -> str:
    size = f"{-(-proof.index.bytes // 1024):,} KiB"
    return size if proof.writes is None else f"{size}, {proof.writes:.1f} pages a row written"


def _saved(gain: Gain) -> str:
    text = f"cost {gain.cost:,.0f}, without it {gain.cost_without:,.0f}"
    if gain.pages is None:
        return text
    without = "not within 2 s" if gain.pages_without is None else f"{gain.pages_without:,}"
    return f"{text}; pages {gain.pages:,}, without it {without}"


def _index(proof: IndexProof) -> dict[str, Any]:
    return {
        "name": proof.index.name,
        "table": proof.index.table,
        "definition": proof.index.definition,
        "bytes": proof.index.bytes,
        "pages_per_row_written": proof.writes,
        "queries": [
            {
                "name": gain.query,
                "cost": gain.cost,
                "cost_without": gain.cost_without,
                "pages": gain.pages,
                "pages_without": gain.pages_without,
            }
            for gain in proof.gains
        ],
    }


def _query(each: QueryPlan) -> dict[str, Any]:
    return {
        "name": each.query.name,
        "about": each.query.about,
        "tier": each.query.tier,
        "as": each.query.actor,
        "indexes": sorted(each.plan.indexes),
        "cost": each.plan.cost,
        "pages": each.plan.pages,
        "milliseconds": each.plan.milliseconds,
    }


def _index_rows(proof: IndexProof) -> Iterator[str]:
    gains: list[Gain | None] = [*proof.gains] or [None]
    for number, gain in enumerate(gains):
        first = [proof.index.name, f"{-(-proof.index.bytes // 1024):,}", _number(proof.writes)]
        cells = ["", "", ""] if number else first
        if gain is not None:
            cells += [gain.query, f"{gain.cost:,.0f}", f"{gain.cost_without:,.0f}"]
            cells += [_number(gain.pages), _number(gain.pages_without)]
        yield _row(cells)


def _query_row(each: QueryPlan) -> str:
    tier = each.query.tier
    plan = each.plan
    numbers = [_number(plan.pages), f"{TIER_PAGES[tier]:,}", _number(plan.milliseconds)]
    return _row([each.query.name, tier, *numbers, ", ".join(sorted(plan.indexes))])


def _row(cells: list[str]) -> str:
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
