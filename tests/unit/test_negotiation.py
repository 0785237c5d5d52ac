"""Accept and Accept-Encoding, decided as RFC 9110 says."""

import pytest

from streams.compression import CODINGS
from streams.formats import FORMATS
from streams.negotiation import coding, media_type

OFFERS = {name: form.media_types for name, form in FORMATS.items()}
ON_OFFER = [name for name in CODINGS if name != "identity"]

FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,"
    "*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "json"),
        ("*/*", "json"),
        (FIREFOX, "json"),
        (CHROME, "json"),
        ("text/csv", "csv"),
        ("TEXT/CSV", "csv"),
        ("text/csv; header=absent; charset=utf-8", "csv"),
        ("text/*", "csv"),
        ("application/*", "json"),
        ("text/event-stream", "sse"),
        ("application/x-ndjson", "ndjson"),
        ("application/jsonl", "ndjson"),
        ("application/ndjson", "ndjson"),
        # Quality first, then what was named, then the header's order.
        ("application/json;q=0.5, text/csv;q=0.6", "csv"),
        ("text/csv;q=0.9, */*", "json"),
        ("*/*, text/csv", "csv"),
        ("text/csv, application/json", "csv"),
        ("application/json, text/csv", "json"),
        # The most specific range decides over a type, not the greatest quality.
        ("application/json;q=0.1, */*;q=0.5", "csv"),
        ("text/csv;q=0, text/*", "sse"),
        ("application/json;q=0, */*", "csv"),
        # What is malformed says nothing.
        ("text/csv;q=2, application/x-ndjson;q=0.1", "ndjson"),
        ("text/csv;q=, application/x-ndjson;q=0.001", "ndjson"),
        (" , ,application/x-ndjson , ", "ndjson"),
    ],
)
def test_the_best_format_is_chosen(accept: str, chosen: str) -> None:
    assert media_type(accept, OFFERS) == chosen


@pytest.mark.parametrize(
    "accept",
    ["image/png", "text/html", "*/*;q=0", "application/json;q=0", "text/csv;q=0.0", "csv", ";q=1"],
)
def test_no_format_is_forced_on_a_client(accept: str) -> None:
    assert media_type(accept, OFFERS) is None


@pytest.mark.parametrize(
    ("accept_encoding", "chosen"),
    [
        (None, "identity"),
        ("", "identity"),
        ("identity", "identity"),
        ("br", "identity"),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("GZIP", "gzip"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("*", "zstd"),
        ("gzip;q=1, zstd;q=0.9", "gzip"),
        ("zstd;q=0, *", "gzip"),
        ("zstd;q=0, gzip;q=0", "identity"),
        ("gzip;q=0.5, identity", "identity"),
        ("gzip;q=0.5, identity;q=0.5", "gzip"),
        ("identity;q=0, gzip;q=0.001", "gzip"),
        ("gzip, *;q=0", "gzip"),
        ("identity, *;q=0", "identity"),
        ("gzip;q=1.5", "identity"),
    ],
)
def test_the_best_coding_is_chosen(accept_encoding: str | None, chosen: str) -> None:
    assert coding(accept_encoding, ON_OFFER) == chosen


@pytest.mark.parametrize(
    "accept_encoding", ["identity;q=0", "*;q=0", "br, identity;q=0", "gzip;q=0, zstd;q=0, *;q=0"]
)
def test_no_coding_is_left_where_identity_is_refused_too(accept_encoding: str) -> None:
    assert coding(accept_encoding, ON_OFFER) is None
