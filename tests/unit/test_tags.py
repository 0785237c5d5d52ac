"""Tags: templates, and the values that a page pins down."""

from dataclasses import replace

import pytest

from feedsvc.datasets.dataset import Column, Declaration
from feedsvc.datasets.tags import Template
from tests.support.datasets import DATASET, ID


@pytest.mark.parametrize("text", ["", "a{", "a}", "{}", "a{b{c}}"])
def test_what_is_no_template_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="column"):
        Template.parse(text)


def test_a_template_is_filled_in_once_from_each_column() -> None:
    template = Template.parse("a:{x}/{y}.")
    assert template.parts() == [("a:", "x"), ("/", "y"), (".", None)]
    assert template.fill({"x": "{y}", "y": "2"}) == "a:{y}/2."
    assert template.fill({"x": "1"}) is None


def test_a_dataset_has_its_name_and_its_tenants_tag_without_naming_them() -> None:
    plain = Declaration(relation="a.b", key=("id",), tenant="t")
    assert [t.text for t in plain.templates("bills")] == ["bills", "bills:{t}"]
    named = Declaration(relation="a.b", key=("id",), tenant="t", tags=("of:{t}", "one:{id}"))
    assert [t.text for t in named.templates("bills")] == ["bills", "of:{t}", "one:{id}"]


def test_a_page_is_a_clients_only_where_it_is_a_tenants() -> None:
    """Of a large write the tenants alone are told, and with '7' in a char(3) none is."""
    text = Column("tenant", "text", False, "pg_catalog.text", "text", "S")
    padded = Column("tenant", "character(3)", False, "pg_catalog.bpchar", "bpchar", "S")
    letters = replace(DATASET, tenant=text, client=ID)
    assert letters.pinned("a", "7") == {"tenant": "a", "id": "7"}
    assert letters.pinned("a", None) == {"tenant": "a"}
    assert replace(letters, tenant=padded).pinned("a", "7") == {}
    assert replace(letters, tenant=None).pinned("a", "7") == {"id": "7"}
    assert replace(letters, shared_with_clients=True).pinned("a", "7") == {"tenant": "a"}
