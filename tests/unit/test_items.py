"""Items of the ledger: the pages that a row of the change log puts out of date, and no others."""

from dataclasses import replace

import pytest

from feedsvc.cache.items import FollowedFeed, items_of
from feedsvc.changes import log_hash
from feedsvc.changes.log_entries import LogEntry
from feedsvc.changes.log_rules import LogFeed
from feedsvc.datasets.tags import Template

WHOLE, TENANTS, CLIENTS, NAMES = TEMPLATES = tuple(
    map(Template.parse, ("letters", "letters:{tenant}", "client:{id}", "name:{id}/{name}"))
)
FEED = LogFeed("letters", ("app", "letters"), ("id",), "tenant", (CLIENTS, NAMES), (), ("id",))
EVERYONE = 99
FOLLOWED = FollowedFeed(FEED, EVERYONE, "utf-8")
UNSPLIT = FollowedFeed(replace(FEED, tenant=None), EVERYONE, "utf-8")
OF_A, OF_B = (log_hash.scope(tenant, EVERYONE) for tenant in "ab")


def is_out(followed: FollowedFeed, entry: LogEntry, **pinned: str) -> bool:
    """Return whether the row of the log puts the page with these values out of date."""
    carried = followed.items(TEMPLATES, pinned)
    assert carried is not None
    return not set(carried).isdisjoint(items_of(entry))


def entry(op: str, scope: int, *tags: str) -> LogEntry:
    return LogEntry(7, scope, FEED.number, op, b"".join(map(log_hash.tag, tags)))


@pytest.mark.parametrize("op", ["u", "g"])
def test_a_row_concerns_its_clients_pages_and_its_tenants(op: str) -> None:
    row = entry(op, OF_A, "client:7", "name:7/x")
    assert is_out(FOLLOWED, row, tenant="a")
    assert is_out(FOLLOWED, row, tenant="a", id="7")
    assert is_out(FOLLOWED, row, tenant="a", id="7", name="x")
    assert not is_out(FOLLOWED, row, tenant="a", id="7", name="y")
    assert not is_out(FOLLOWED, row, tenant="a", id="8")
    assert not is_out(FOLLOWED, row, tenant="b")
    assert not is_out(FOLLOWED, row, tenant="b", id="7")


@pytest.mark.parametrize("op", ["m", "o", "t", "w", "?"])
def test_what_is_wider_than_rows_concerns_a_whole_scope(op: str) -> None:
    wide = entry(op, OF_A)
    assert is_out(FOLLOWED, wide, tenant="a")
    assert is_out(FOLLOWED, wide, tenant="a", id="7")
    assert not is_out(FOLLOWED, wide, tenant="b")
    for tenant in "ab":
        assert is_out(FOLLOWED, entry(op, EVERYONE), tenant=tenant, id="7")


@pytest.mark.parametrize("op", ["w", "i"])
def test_a_tag_concerns_all_pages_that_carry_it(op: str) -> None:
    scope = {"w": EVERYONE, "i": 0}[op]
    assert is_out(FOLLOWED, entry(op, scope, "client:7"), tenant="a", id="7", name="x")
    assert not is_out(FOLLOWED, entry(op, scope, "client:7"), tenant="a")
    assert is_out(FOLLOWED, entry(op, scope, "letters:a"), tenant="a", id="7")
    assert not is_out(FOLLOWED, entry(op, scope, "letters:a"), tenant="b")
    assert is_out(FOLLOWED, entry(op, scope, "letters"), tenant="b")
    assert not is_out(FOLLOWED, entry(op, scope, "others"), tenant="b")


def test_without_a_tenant_all_rows_concern_all_readers() -> None:
    row = entry("u", EVERYONE, "client:7")
    assert is_out(UNSPLIT, row)
    assert is_out(UNSPLIT, row, id="7")
    assert not is_out(UNSPLIT, row, id="8")


def test_a_value_that_no_row_can_have_makes_no_page() -> None:
    assert FOLLOWED.items(TEMPLATES, {}) is None
    latin = FollowedFeed(FEED, EVERYONE, log_hash.codec("LATIN1"))
    assert latin.items(TEMPLATES, {"tenant": "Łódź"}) is None
    assert latin.items(TEMPLATES, {"tenant": "été"}) != FOLLOWED.items(TEMPLATES, {"tenant": "été"})


@pytest.mark.parametrize(
    "name", ["UTF8", "SQL_ASCII", "LATIN1", "LATIN9", "WIN1252", "EUC_JP", "KOI8R", "ISO_8859_5"]
)
def test_the_encodings_of_postgresql_have_names_in_python(name: str) -> None:
    assert "a".encode(log_hash.codec(name)) == b"a"
    if name == "WIN1252":
        assert "€".encode(log_hash.codec(name)) == b"\x80"
