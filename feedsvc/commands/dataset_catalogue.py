"""A catalogue of the queries that the datasets file allows: each order, each filter."""

from collections.abc import Iterator, Mapping

from feedsvc.backends.postgres.index_proof.catalogue import CatalogueQuery, Tier
from feedsvc.datasets.dataset import KEY_ORDER, Declaration, quote_identifier

_PAGE = 50
_SAMPLE = 10_000


def dataset_queries(declared: Mapping[str, Declaration]) -> Iterator[CatalogueQuery]:
    """The first page of each order, and of each filter that an index can serve.

    The tenant is the most frequent one among 10,000 rows, a filter's value one of its rows'.
    """
    for name, declaration in declared.items():
        for order, columns in {KEY_ORDER: declaration.key, **declaration.orders}.items():
            yield _query(f"{name} order={order}", declaration, _ordered(declaration, columns), None)
        for column, operators in declaration.filters.items():
            if {"eq", "in"} & {*operators} and column not in declaration.key:
                by_key = _ordered(declaration, declaration.key)
                yield _query(f"{name} {column}=", declaration, by_key, column)


def _query(name: str, declaration: Declaration, order: str, column: str | None) -> CatalogueQuery:
    relation = ".".join(quote_identifier(part) for part in declaration.relation_parts())
    named = [each for each in (declaration.tenant, column) if each is not None]
    quoted = [quote_identifier(each) for each in named]
    where = " AND ".join(f"{each} = ${place}" for place, each in enumerate(quoted, 1))
    condition = f" WHERE {where}" if where else ""
    tier: Tier = "analytics" if declaration.pool == "analytics" else "standard"
    return CatalogueQuery(
        name=name,
        about="",
        tier=tier,
        actor="feed",
        uses=(),
        draw=_draw(relation, quoted) if quoted else None,
        sql=f"SELECT * FROM {relation}{condition} ORDER BY {order} LIMIT {_PAGE}",  # noqa: S608 - names of a datasets file, quoted
    )


def _draw(relation: str, quoted: list[str]) -> str:
    filled = " AND ".join(f"{each} IS NOT NULL" for each in quoted)
    columns = ", ".join(quoted)
    return (
        f"SELECT {columns} FROM (SELECT {columns} FROM {relation} WHERE {filled} LIMIT {_SAMPLE})"  # noqa: S608 - as above
        f" AS s GROUP BY {columns} ORDER BY count(*) DESC, {columns} LIMIT 1"
    )


def _ordered(declaration: Declaration, columns: tuple[str, ...]) -> str:
    """The order's columns and then the key's, in the direction of the last one before them."""
    named = [column.removeprefix("-") for column in columns]
    direction = " DESC" if columns[-1].startswith("-") else ""
    parts = [
        quote_identifier(column.removeprefix("-")) + (" DESC" if column.startswith("-") else "")
        for column in columns
    ]
    parts += [quote_identifier(key) + direction for key in declaration.key if key not in named]
    return ", ".join(parts)
