"""An advice as text and as JSON."""

from collections.abc import Iterator, Sequence

import orjson

from feedsvc.backends.postgres.advice.documents import advice_document, proposal_document
from feedsvc.backends.postgres.advice.model import Advice, Proposal, StatementAdvice
from feedsvc.core.json_object import Json

_MOST_STATEMENTS = 20


def as_json(advice: Advice, repeated: Sequence[Json]) -> Iterator[str]:
    """One object: `statements` by total time, `proposals`, `repeated` and `lacking`."""
    document = {
        "statements": [advice_document(each) for each in advice.statements],
        "proposals": [proposal_document(each) for each in advice.proposals],
        "repeated": repeated,
        "lacking": list(advice.lacking),
    }
    yield orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def lines(advice: Advice, repeated: Sequence[Json]) -> Iterator[str]:
    """Proposals, then the twenty statements of the most time that have findings or proposals.

    Then requests that one could replace, and what could not be looked at.
    """
    calls = {each.statement.name: each.statement.calls for each in advice.statements}
    for proposal in advice.proposals:
        helped = sum(calls.get(name, 0) for name in proposal.helps)
        is_known = proposal.helps and any(calls.values())
        yield from _proposal(proposal, helped if is_known else None)
    if not advice.proposals:
        yield "nothing to propose"
    yield from _statements([each for each in advice.statements if each.findings or each.proposals])
    for each in repeated:
        yield from _repetition(each)
    for sentence in advice.lacking:
        yield f"not seen: {sentence}"


def _proposal(proposal: Proposal, calls: int | None) -> Iterator[str]:
    """The statement, why, its proof, and each query that it touches."""
    size = "" if proposal.size_bytes is None else f", {-(-proposal.size_bytes // 1024):,} KiB"
    pages = "" if proposal.write_cost is None else f", {proposal.write_cost:.1f} pages a write"
    yield f"{proposal.statement};"
    known = "" if calls is None else f", {_calls(calls)}"
    yield f"  {proposal.reason} ({proposal.proof}{size}{pages}{known})"
    for name, before in proposal.cost_before.items():
        worse = ", which is worse" if name in proposal.harms else ""
        yield f"  {name}: cost {before:,.0f}, with it {proposal.cost_after[name]:,.0f}{worse}"


def _repetition(found: Json) -> Iterator[str]:
    """The endpoint, pattern, count and lost time, and the one request in their place."""
    column = f" by {found['column']}" if found["column"] else ""
    yield (
        f"{found['method']} {found['route']} of {found['dataset']}: {found['pattern']}{column},"
        f" {found['count']:,} requests of {found['runs']:,} runs, {found['lost_ms']:,.0f} ms lost"
    )
    for proposal in found["proposals"]:
        yield f"  {proposal['statement']}"


def _statements(faulty: Sequence[StatementAdvice]) -> Iterator[str]:
    for each in faulty[:_MOST_STATEMENTS]:
        given = each.statement
        figures = f", {_calls(given.calls)} of {given.mean_ms:,.1f} ms" if given.calls else ""
        figures += "" if given.p95_ms is None else f" (p95 {given.p95_ms:,.1f})"
        cost = "" if each.plan is None else f", cost {each.plan.cost:,.0f}"
        yield f"{given.name}: score {each.score}{figures}{cost}"
        for finding in each.findings:
            yield f"  {finding.sentence}"
    if len(faulty) > _MOST_STATEMENTS:
        yield f"{len(faulty) - _MOST_STATEMENTS} more statements with findings: --json"


def _calls(count: int) -> str:
    return {0: "no calls", 1: "1 call"}.get(count, f"{count:,} calls")
