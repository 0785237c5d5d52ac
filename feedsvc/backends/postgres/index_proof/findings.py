"""Faults that a proof finds, a sentence each that names index and queries."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from feedsvc.backends.postgres.index_proof.catalogue import TIER_PAGES, CatalogueQuery
from feedsvc.backends.postgres.index_proof.existing import ExistingIndex
from feedsvc.backends.postgres.index_proof.proof import IndexProof, QueryPlan

_LEAST_GAIN = 1.01


def plan_findings(
    indexes: Sequence[ExistingIndex], plans: Sequence[QueryPlan], large: Collection[str]
) -> Iterator[str]:
    """Queries that miss an index that they name, scan a large table, or miss their tier."""
    names = {index.name for index in indexes}
    missed: dict[str, list[str]] = {}
    for each in plans:
        used = {name.partition(".")[2] for name in each.plan.indexes} | each.plan.indexes
        for wanted in each.query.uses:
            if wanted not in used:
                missed.setdefault(wanted, []).append(each.query.name)
        for table in sorted(each.plan.scanned & set(large)):
            yield f"query {each.query.name} reads all of {table}"
        pages = each.plan.pages
        if pages is not None and pages > TIER_PAGES[each.query.tier]:
            limit = TIER_PAGES[each.query.tier]
            yield (
                f"query {each.query.name} touches {pages} pages, where its tier"
                f" {each.query.tier} allows {limit}"
            )
    for wanted, queries in missed.items():
        is_there = any(name == wanted or name.partition(".")[2] == wanted for name in names)
        why = "is not used" if is_there else "is missing"
        yield f"index {wanted} {why}: needed by {', '.join(queries)}"


def undrawn_findings(
    queries: Sequence[CatalogueQuery], arguments: Mapping[str, object]
) -> Iterator[str]:
    """Queries whose tables have no row to draw parameters from."""
    for query in queries:
        if query.name not in arguments:
            yield f"query {query.name} proves nothing: no row has its parameters"


def proof_findings(proofs: Sequence[IndexProof]) -> Iterator[str]:
    """Indexes that no query uses, or that save no query anything."""
    for proof in proofs:
        if proof.index.is_unique:
            continue
        if not proof.gains:
            yield f"index {proof.index.name} is useless: no query of the catalogue uses it"
        elif all(gain.cost_without < gain.cost * _LEAST_GAIN for gain in proof.gains):
            queries = ", ".join(gain.query for gain in proof.gains)
            yield f"index {proof.index.name} saves nothing: without it {queries} costs the same"
