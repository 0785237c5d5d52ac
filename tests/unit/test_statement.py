"""Statements: what a caller who is narrowed to one client can read of a dataset without clients."""

from dataclasses import replace

import pytest

from feedsvc.core.principal import Principal
from feedsvc.datasets.dataset import OrderColumn
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.sql import statement
from feedsvc.feeds.sql.binary_projection import binary_row
from tests.support.datasets import DATASET, ID

NARROWED = Principal("t", "member", "1", 0.0)
WITHOUT_CLIENTS = replace(
    DATASET,
    columns={"id": ID},
    all_columns={"id": ID},
    client=None,
    shared_with_clients=False,
    orders={"key": (OrderColumn(ID, False),)},
)


def _statements() -> dict[str, str]:
    query = FeedQuery.parse({"format": "ndjson"}, WITHOUT_CLIENTS)
    row = binary_row(query.columns, [part.column for part in query.order], "json")
    return {
        "feed": statement.projected_sql(query, NARROWED, None, None).sql,
        "sent": statement.binary_cursor_sql(query, NARROWED, row, None, None).sql,
        "copied": statement.copy_sql(query, NARROWED, row, None, 10),
        "bound": statement.range_end_sql(query, NARROWED, None, 10).sql,
        "one row": statement.one_row(WITHOUT_CLIENTS, (ID,), ("1",), NARROWED).sql,
    }


@pytest.mark.parametrize("name", ["feed", "sent", "copied", "bound", "one row"])
def test_a_narrowed_caller_reads_no_row_where_no_column_names_its_client(name: str) -> None:
    """The last lock: such a request is refused before (`Dataset.readable_by`)."""
    conditions = _statements()[name].partition(" WHERE ")[2].partition(" ORDER BY ")[0]
    assert "false" in conditions.removesuffix(" LIMIT 1").split(" AND ")
