"""Envelopes: what goes in comes out, and nothing else does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedsvc.access.service_key import Seal
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.cache.envelope import EnvelopeError, pack, unpack
from feedsvc.feeds.page import Page, digest_of

SEAL = Seal(b"a key of these tests' own")
RECORDS = st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")).map(str.encode))


def page(records: list[bytes]) -> Page:
    return Page(
        records=records,
        digest=digest_of(records),
        last="1" if records else None,
        more=False,
        snapshot=Snapshot(3, 9, frozenset([5])),
        loaded=1.5,
        cost=0.25,
    )


@given(RECORDS)
def test_a_page_comes_out_as_it_went_in(records: list[bytes]) -> None:
    found = unpack("key", pack("key", page(records), SEAL), SEAL)
    assert found.records == records
    assert found.digest == digest_of(records)
    assert (found.last, found.more, found.loaded, found.cost) == (
        "1" if records else None, False, 1.5, 0.25,
    )  # fmt: skip
    assert str(found.snapshot) == "3:9:5"


def test_what_repeats_itself_is_packed_smaller() -> None:
    assert len(pack("key", page([b'{"id":1,"name":"Ann"}'] * 500), SEAL)) < 500 * 21 // 4


def test_another_keys_page_is_refused() -> None:
    with pytest.raises(EnvelopeError, match="another page"):
        unpack("ours", pack("theirs", page([b"{}"]), SEAL), SEAL)


@given(st.integers(0), st.integers(1, 255), st.booleans())
def test_a_damaged_envelope_is_refused(place: int, flip: int, large: bool) -> None:
    envelope = bytearray(pack("key", page([b'{"id":1}'] * (400 if large else 3)), SEAL))
    envelope[place % len(envelope)] ^= flip
    with pytest.raises(EnvelopeError):
        unpack("key", bytes(envelope), SEAL)


def test_an_envelope_of_another_making_is_refused() -> None:
    """Everything in it is right but the seal: whoever can write to Redis makes no page."""
    with pytest.raises(EnvelopeError, match="making"):
        unpack("key", pack("key", page([b"{}"]), Seal(b"another key")), SEAL)


@given(st.binary())
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(EnvelopeError):
        unpack("key", garbage, SEAL)
    with pytest.raises(EnvelopeError):
        unpack("key", b"feedsvc-page-3\n" + garbage, SEAL)
