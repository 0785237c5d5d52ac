"""The one request in the place of many, with placeholders for values."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from feedsvc.backends.postgres.advice.model import Proposal
from feedsvc.core.events import RepeatPattern
from feedsvc.datasets.dataset import Dataset

ENDPOINTS: Final[Mapping[RepeatPattern, str]] = {
    "row-by-key": "/v1/feeds/{dataset}/{key}",
    "page-by-filter": "/v1/feeds/{dataset}",
    "small-pages": "/v1/feeds/{dataset}",
}
"""The route of each pattern's requests."""
_LISTED: Final = "`in` takes up to 1,000 values, as far as the length of a URL allows."
_WHOLE: Final = "The feed without `limit` is an export of all rows, in one snapshot."
_REASONS: Final[Mapping[RepeatPattern, str]] = {
    "row-by-key": "One principal read many rows by key, one request each, in a short time.",
    "page-by-filter": "One principal read a page for each of many values of one filter.",
    "small-pages": "One principal looped over `after` with a `limit` of a few rows.",
}


def replacement(pattern: RepeatPattern, dataset: Dataset, column: str) -> Proposal:
    """The request that replaces those of a pattern; `column` is that of `page-by-filter`."""
    path = f"GET /v1/feeds/{quote(dataset.name)}"
    if pattern == "row-by-key" and len(dataset.key) == 1:
        column = dataset.key[0].name
    if pattern == "small-pages":
        return _proposal(f"{path}?limit=1000", f"{_REASONS[pattern]} {_WHOLE}", dataset)
    if "in" in dataset.filters.get(column, ()):
        name = quote(column)
        statement = f"{path}?{name}.in={{{name}}},{{{name}}},…"
        return _proposal(statement, f"{_REASONS[pattern]} {_LISTED}", dataset)
    return _proposal(path, f"{_REASONS[pattern]} {_WHOLE}", dataset)


def _proposal(statement: str, reason: str, dataset: Dataset) -> Proposal:
    return Proposal(
        kind="request",
        statement=statement,
        proof="unproven",
        cost_before={},
        cost_after={},
        size_bytes=None,
        write_cost=None,
        helps=(dataset.name,),
        harms=(),
        reason=reason,
    )
