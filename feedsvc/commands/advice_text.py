"""An advice as text and as JSON."""

from collections.abc import Iterator, Sequence

import orjson

from feedsvc.backends.postgres.advice.documents import advice_document, proposal_document
from feedsvc.backends.postgres.advice.model import Advice, Proposal, StatementAdvice

_MOST_STATEMENTS = 20


def as_json(advice: Advice) -> str:
    """One object: `statements` by total time, `proposals` and `lacking`."""
    document = {
        "statements": [advice_document(each) for each in advice.statements],
        "proposals": [proposal_document(each) for each in advice.proposals],
        "lacking": list(advice.lacking),
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def lines(advice: Advice) -> Iterator[str]:
    """Proposals, then the twenty statements of the most time that have findings or proposals."""
    for proposal in advice.proposals:
        yield from _proposal(proposal)
    if not advice.proposals:
        yield "nothing to propose"
    yield from _statements([each for each in advice.statements if each.findings or each.proposals])
    for sentence in advice.lacking:
        yield f"not seen: {sentence}"


def _proposal(proposal: Proposal) -> Iterator[str]:
    """The statement, why, its proof, and each query that it touches."""
    size = "" if proposal.size_bytes is None else f", {-(-proposal.size_bytes // 1024):,} KiB"
    pages = "" if proposal.write_cost is None else f", {proposal.write_cost:.1f} pages a write"
    yield f"{proposal.statement};"
    yield f"  {proposal.reason} ({proposal.proof}{size}{pages})"
    for name, before in proposal.cost_before.items():
        yield f"  {name}: cost {before:,.0f}, with it {proposal.cost_after[name]:,.0f}"


def _statements(faulty: Sequence[StatementAdvice]) -> Iterator[str]:
    for each in faulty[:_MOST_STATEMENTS]:
        given = each.statement
        figures = f", {given.calls:,} calls of {given.mean_ms:,.1f} ms" if given.calls else ""
        cost = "" if each.plan is None else f", cost {each.plan.cost:,.0f}"
        yield f"{given.name}: score {each.score}{figures}{cost}"
        for finding in each.findings:
            yield f"  {finding.sentence}"
    if len(faulty) > _MOST_STATEMENTS:
        yield f"{len(faulty) - _MOST_STATEMENTS} more statements with findings: --json"
