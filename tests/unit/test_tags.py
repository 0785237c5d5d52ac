"""Tags: templates, and what a page is looked up under."""

import base64
import hashlib
from dataclasses import replace

import pytest

from feedsvc.datasets.dataset import Column, Declaration
from feedsvc.datasets.tags import Template, all_under, digest, exactly, lookup_items
from tests.support.datasets import DATASET, ID

TEMPLATES = tuple(map(Template.parse, ("clients", "clients:{tenant}", "client:{id}")))


@pytest.mark.parametrize("text", ["", "a{", "a}", "{}", "a{b{c}}"])
def test_what_is_no_template_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="column"):
        Template.parse(text)


def test_a_template_is_filled_in_once_from_each_column() -> None:
    template = Template.parse("a:{x}/{y}.")
    assert template.parts() == [("a:", "x"), ("/", "y"), (".", None)]
    assert template.fill({"x": "{y}", "y": "2"}) == "a:{y}/2."
    assert template.fill({"x": "1"}) is None


def test_a_page_is_looked_up_under_its_narrowest_tag_and_below_all_that_it_carries() -> None:
    everybody = lookup_items(TEMPLATES, {})
    assert everybody == (exactly("clients"), all_under("clients"))
    member = lookup_items(TEMPLATES, {"tenant": "a"})
    assert member == (exactly("clients:a"), all_under("clients"), all_under("clients:a"))
    couple = lookup_items(TEMPLATES, {"tenant": "a", "id": "7"})
    assert couple[0] == exactly("client:7")
    assert set(couple[1:]) == {all_under(t) for t in ("clients", "clients:a", "client:7")}


def test_the_digest_is_the_one_that_sql_works_out() -> None:
    hashed = hashlib.sha256("clients:été".encode()).digest()
    assert digest("clients:été") == base64.b64encode(hashed[:9]).decode()
    assert len(digest("")) == 12


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
