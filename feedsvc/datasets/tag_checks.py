"""Checks of tags: their columns exist, and distinguish pages.

What is wrong here loses or spoils the cache and nothing else; but a name that nothing bears is a
mistake like any other in the file.
"""

from collections.abc import Iterable, Iterator, Mapping

import asyncpg

from feedsvc.core.finding import Finding
from feedsvc.datasets import catalog
from feedsvc.datasets.dataset import Declaration, relation_parts
from feedsvc.datasets.relation import Relation
from feedsvc.datasets.tags import Template


async def tag_findings(
    connection: asyncpg.Connection, declarations: Mapping[str, Declaration]
) -> list[Finding]:
    """Every finding about `tags` and `watch`. Raises what asyncpg raises."""
    named = {d.relation for d in declarations.values()}
    named.update(*(d.watch for d in declarations.values()))
    texts = sorted(text for text in named if _is_relation(text))
    found = await catalog.relations(connection, [relation_parts(text) for text in texts])
    relations = dict(zip(texts, found, strict=True))
    return [
        finding
        for name, declaration in declarations.items()
        for finding in (
            *_of_tags(name, declaration, relations.get(declaration.relation)),
            *_of_watched(name, declaration, relations),
        )
    ]


def _of_tags(name: str, declaration: Declaration, relation: Relation | None) -> Iterator[Finding]:
    if relation is None:
        return  # the catalog's findings say so
    place, known = f"{name}.tags", relation.columns
    for column in _columns(declaration.tags):
        if column not in known:
            yield _unknown(place, declaration.relation, column, known)
        elif declaration.cache and not known[column].has_one_text:
            yield Finding(
                "warning", place, f"{_several(column, relation)}: pages are not distinguished by it"
            )
    tenant = declaration.tenant
    if not declaration.cache or tenant is None or tenant not in known:
        return
    if not known[tenant].has_one_text:
        what = f"{_several(tenant, relation)}: any tenant's change invalidates all tenants' pages"
        yield Finding("warning", f"{name}.tenant", what)


def _of_watched(
    name: str, declaration: Declaration, relations: Mapping[str, Relation | None]
) -> Iterator[Finding]:
    for watched, tags in declaration.watch.items():
        place, relation = f'{name}.watch."{watched}"', relations.get(watched)
        if relation is None:
            yield Finding("error", place, f"there is no table or view {watched}")
            continue
        for column in _columns(tags):
            if column not in relation.columns:
                yield _unknown(place, watched, column, relation.columns)
            elif declaration.cache and not relation.columns[column].has_one_text:
                what = f"{_several(column, relation)}: a change invalidates every page of {name}"
                yield Finding("warning", place, what)


def _columns(tags: Iterable[str]) -> list[str]:
    """The columns that the tags name, each once."""
    return list(dict.fromkeys(c for tag in tags for c in Template.parse(tag).columns))


def _unknown(place: str, relation: str, column: str, known: Iterable[str]) -> Finding:
    what = f"{relation} has no column {column!r}; it has {', '.join(known)}"
    return Finding("error", place, what)


def _several(column: str, relation: Relation) -> str:
    return (
        f"equal values of {column!r} ({relation.columns[column].type}) may be written differently"
    )


def _is_relation(text: str) -> bool:
    try:
        relation_parts(text)
    except ValueError:
        return False
    return True
