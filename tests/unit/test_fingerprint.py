"""Whatever a page depends on beside its query makes another key of it."""

from dataclasses import replace

import pytest

from feedsvc.cache.fingerprint import fingerprint
from feedsvc.datasets import Column, Dataset
from feedsvc.tags import Template
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
