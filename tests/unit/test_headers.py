"""Headers of a feed's answer: file names, validators and links."""

import re
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.cache.status import PAST_THE_CACHE
from feedsvc.feeds.page import Page, digest_of
from feedsvc.feeds.query import FeedQuery
from feedsvc.web import headers
from tests.support.datasets import DATASET

EXPORT = "c0ffee00-0000-4000-8000-00000000000f"


def query(**given: str) -> FeedQuery:
    return FeedQuery.parse({"export": EXPORT, **given}, DATASET)


@pytest.mark.parametrize(
    ("filename", "value"),
    [
        ("clients.csv", 'attachment; filename="clients.csv"'),
        ("my clients.csv", 'attachment; filename="my clients.csv"'),
        ("été.csv", "attachment; filename=\"ete.csv\"; filename*=UTF-8''%C3%A9t%C3%A9.csv"),
        (
            "顧客.csv",
            "attachment; filename=\"feed.csv\"; filename*=UTF-8''%E9%A1%A7%E5%AE%A2.csv",
        ),
        ('a"; filename="evil.exe.csv', 'attachment; filename="a_; filename=_evil.exe.csv"'),
        ("a\r\nSet-Cookie: x=1.csv", 'attachment; filename="a_Set-Cookie_ x=1.csv"'),
        ("../../etc/passwd.csv", 'attachment; filename="_.._etc_passwd.csv"'),
        ("a\\b\0c.csv", 'attachment; filename="a_b_c.csv"'),
        ("", 'attachment; filename="feed"'),
        (" . ", 'attachment; filename="feed"'),
        (
            "a\uff02\uff3c.csv",
            "attachment; filename=\"a_.csv\"; filename*=UTF-8''a%EF%BC%82%EF%BC%BC.csv",
        ),
        ("50%41.csv", "attachment; filename=\"50_41.csv\"; filename*=UTF-8''50%2541.csv"),
    ],
)
def test_a_file_name_is_cleaned_and_sent_twice_where_it_is_not_ascii(
    filename: str, value: str
) -> None:
    assert headers.attachment(filename) == value


@given(st.text(st.characters(codec="utf-8")))
def test_no_file_name_leaves_its_quotes_or_its_folder(filename: str) -> None:
    value = headers.attachment(filename)
    parts = re.fullmatch(
        r'attachment; filename="([^"\\/%\x00-\x1f\x7f-\U0010ffff]+)"'
        r"(; filename\*=UTF-8''([\w.~%-]+))?",
        value,
        re.ASCII,
    )
    assert parts is not None
    for name in (parts[1], unquote(parts[3] or "x", errors="strict")):
        assert not re.search(r'[\x00-\x1f\x7f"\\/]', name)
        assert name not in {".", ".."}


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"format": "json"}, "application/json"),
        ({"format": "csv"}, "text/csv; charset=utf-8; header=present"),
        ({"format": "csv", "header": "0"}, "text/csv; charset=utf-8; header=absent"),
        ({"format": "ndjson"}, "application/x-ndjson"),
        ({"format": "ndjson", "frames": "1"}, "application/x-ndjson"),
        ({"format": "sse"}, "text/event-stream"),
    ],
)
def test_the_content_type_is_the_formats(given: dict[str, str], value: str) -> None:
    assert headers.of_feed(query(**given), EXPORT, PAST_THE_CACHE)["Content-Type"] == value


def test_csv_alone_is_a_download_with_a_guard() -> None:
    fields = headers.of_feed(query(format="csv"), EXPORT, PAST_THE_CACHE)
    assert fields["Feed-CSV-Guard"] == "on"
    assert 'filename="Dinge.csv"' in fields["Content-Disposition"]
    assert (
        headers.of_feed(query(format="csv", guard="off"), EXPORT, PAST_THE_CACHE)["Feed-CSV-Guard"]
        == "off"
    )
    assert (
        not {"Feed-CSV-Guard", "Content-Disposition"}
        & headers.of_feed(query(), EXPORT, PAST_THE_CACHE).keys()
    )


def test_every_feed_says_how_it_may_be_kept_and_what_it_is_called() -> None:
    fields = headers.of_feed(query(), EXPORT, PAST_THE_CACHE)
    assert fields["Feed-Export"] == EXPORT
    assert fields["Cache-Control"] == "private, no-cache"
    assert fields["Cache-Status"].startswith("feedsvc;")
    assert {"Accept", "Accept-Encoding", "Authorization"} <= set(fields["Vary"].split(", "))


RECORDS = [b'{"id":1}', b'{"id":2}']


def page(records: list[bytes], *, more: bool = False) -> Page:
    return Page(records, digest_of(records), "2", more, Snapshot(3, 3, frozenset()), 0.0, 0.0)


def test_the_same_page_has_the_same_tag_however_it_was_read() -> None:
    tag = headers.entity_tag(query(), page(RECORDS))
    assert re.fullmatch(r'W/"[0-9a-f]{32}"', tag)
    assert headers.entity_tag(query(export=EXPORT.replace("f", "e")), page(RECORDS)) == tag


def test_another_page_has_another_tag() -> None:
    tags = {
        headers.entity_tag(query(), page(RECORDS)),
        headers.entity_tag(query(), page(RECORDS, more=True)),
        headers.entity_tag(query(), page([])),
        headers.entity_tag(query(), page([b'{"id":1}{"id":2}'])),
        headers.entity_tag(query(format="sse"), page(RECORDS)),
        headers.entity_tag(query(format="csv"), page(RECORDS)),
        headers.entity_tag(query(format="csv", header="0"), page(RECORDS)),
        headers.entity_tag(query(format="csv", delimiter=";"), page(RECORDS)),
        headers.entity_tag(query(format="csv", bom="1"), page(RECORDS)),
        headers.entity_tag(query(format="csv", guard="off"), page(RECORDS)),
        headers.entity_tag(query(format="csv", quote="all"), page(RECORDS)),
        headers.entity_tag(query(format="csv", delimiter=";", decimal="comma"), page(RECORDS)),
        headers.entity_tag(query(format="csv", datetime="excel"), page(RECORDS)),
        headers.entity_tag(query(format="csv", datetime="excel", tz="Asia/Tokyo"), page(RECORDS)),
    }
    assert len(tags) == 14


@pytest.mark.parametrize(
    ("given", "matched"),
    [
        (None, False),
        ("", False),
        ("*", True),
        (" * ", True),
        ('W/"abc"', True),
        ('"abc"', True),
        ('"x", W/"abc"', True),
        ('"x","abc","y"', True),
        ('"a,b", "abc"', True),
        ("abc", False),
        ('"ABC"', False),
        ('"abcd"', False),
        ('"*"', False),
        ('"x, W/"', False),
    ],
)
def test_if_none_match_is_compared_weakly(given: str | None, matched: bool) -> None:
    assert headers.matches(given, 'W/"abc"') is matched


def test_a_next_link_keeps_what_was_asked_and_moves_on() -> None:
    asked = {"limit": "2", "note": 'é&"<>', "after": "1", "export": EXPORT, "last_event_id": "1"}
    value = headers.next_page("/v1/feeds/things", asked, "a%2Cb,2")
    parts = re.fullmatch(r'<([^<>"\s]+)>; rel="next"', value)
    assert parts is not None
    address = urlsplit(parts[1])
    assert address.path == "/v1/feeds/things"
    assert dict(parse_qsl(address.query, strict_parsing=True)) == {
        "limit": "2",
        "note": 'é&"<>',
        "after": "a%2Cb,2",
    }
