"""Whatever a page depends on makes another key of it."""

from dataclasses import replace

import pytest

from feedsvc.cache.key import fingerprint, page_key
from feedsvc.core.principal import Principal
from feedsvc.datasets.dataset import Column, Dataset, OrderColumn
from feedsvc.datasets.tags import Template
from feedsvc.feeds.query import FeedQuery
from tests.support.datasets import DATASET, ID

NAME = Column("name", "text", True, "pg_catalog.text", "text", "S")
OTHERS = [
    replace(DATASET, name="others"),
    replace(DATASET, relation='"app"."others"'),
    replace(DATASET, columns={"id": ID, "name": NAME}),
    replace(DATASET, columns={"id": replace(ID, kind="int4")}),
    replace(DATASET, tenant=NAME),
    replace(DATASET, client=NAME),
    replace(DATASET, shared_with_clients=True),
    replace(DATASET, tags=(*DATASET.tags, Template.parse("thing:{id}"))),
]


@pytest.mark.parametrize("other", OTHERS)
def test_another_dataset_has_other_pages(other: Dataset) -> None:
    assert fingerprint(other, 500) != fingerprint(DATASET, 500)


def test_pages_of_another_size_are_others() -> None:
    assert fingerprint(DATASET, 500) == fingerprint(replace(DATASET), 500)
    assert fingerprint(DATASET, 500) != fingerprint(DATASET, 501)


ASKED = FeedQuery.parse(
    {"format": "ndjson"},
    replace(
        DATASET,
        columns={"id": ID, "name": NAME},
        all_columns={"id": ID, "name": NAME},
        orders={"key": (OrderColumn(ID, False),), "back": (OrderColumn(ID, True),)},
        filters={"name": ("eq", "ne")},
    ),
)
SAME = [
    {"format": "json"},
    {"format": "sse", "progress": "3"},
    {"format": "ndjson", "frames": "1"},
    {"format": "ndjson", "export": "7b0cf5e1-1d6f-4d5c-9a1d-0c6f0f2f2d11"},
    {"format": "ndjson", "order": "key"},
]
OTHER = [
    {"format": "csv"},
    {"format": "csv", "delimiter": ";"},
    {"format": "csv", "guard": "off"},
    {"format": "csv", "quote": "all"},
    {"format": "csv", "delimiter": ";", "decimal": "comma"},
    {"format": "csv", "datetime": "excel"},
    {"format": "csv", "datetime": "excel", "tz": "Europe/Berlin"},
    {"format": "ndjson", "columns": "id"},
    {"format": "ndjson", "columns": "name,id"},
    {"format": "ndjson", "order": "back"},
    {"format": "ndjson", "after": "7"},
    {"format": "ndjson", "name": "a"},
    {"format": "ndjson", "name": "b"},
    {"format": "ndjson", "name.ne": "a"},
]
CALLERS = [
    Principal("t", "member", None, 0.0),
    Principal("u", "member", None, 0.0),
    Principal("t", "admin", None, 0.0),
    Principal("t", "member", "1", 0.0),
]


def key(given: dict[str, str], caller: Principal = CALLERS[0], limit: int | None = 20) -> str:
    query = FeedQuery.parse(given, ASKED.dataset)
    return page_key("origin", "fingerprint", caller, query, limit)


@pytest.mark.parametrize("given", SAME)
def test_formats_of_the_same_records_share_them(given: dict[str, str]) -> None:
    assert key(given) == key({"format": "ndjson"})


def test_no_two_of_these_have_one_key() -> None:
    keys = [key(given) for given in [SAME[0], *OTHER]]
    keys += [key(SAME[0], caller) for caller in CALLERS[1:]]
    keys += [key(SAME[0], limit=limit) for limit in (None, 21)]
    keys.append(page_key("another origin", "fingerprint", CALLERS[0], ASKED, 20))
    keys.append(page_key("origin", "another fingerprint", CALLERS[0], ASKED, 20))
    assert len(set(keys)) == len(keys)


def test_a_callers_subject_makes_no_difference_within_its_scope() -> None:
    again = replace(CALLERS[0], subject="somebody", expires_at=9.0)
    assert key(SAME[0], again) == key(SAME[0])


def test_a_long_key_is_short_and_as_good_as_the_whole() -> None:
    asked = [{"format": "ndjson", "name.ne": "x" * 13_500 + end} for end in "ab"]
    keys = [key(given) for given in asked] + [key(asked[0], CALLERS[1])]
    assert len(set(keys)) == len(keys)
    assert max(map(len, keys)) < 400
    assert keys[0] == key(asked[0])
    assert CALLERS[0].tenant in keys[0]
