"""Resume tokens: any texts come back as they went in, and what is no token is refused."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import tokens

TEXTS = st.lists(st.text(), min_size=1, max_size=5)


@given(TEXTS)
def test_any_texts_come_back(parts: list[str]) -> None:
    assert tokens.decode(tokens.encode(parts)) == tuple(parts)


@given(TEXTS)
def test_a_token_holds_nothing_but_unreserved_characters_percents_and_commas(
    parts: list[str],
) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._~,%-]*", tokens.encode(parts))


@pytest.mark.parametrize(
    ("parts", "token"),
    [
        (("42",), "42"),
        (("2026-05-30T17:30:00+00:00", "7"), "2026-05-30T17%3A30%3A00%2B00%3A00,7"),
        (("a,b", "c d"), "a%2Cb,c%20d"),
        (("", ""), ","),
        (("é\r\n",), "%C3%A9%0D%0A"),
    ],
)
def test_a_token_is_what_a_client_would_build_by_hand(parts: tuple[str, ...], token: str) -> None:
    assert tokens.encode(parts) == token


def test_what_a_client_left_unencoded_is_understood_all_the_same() -> None:
    assert tokens.decode("Zoë & co,17:30") == ("Zoë & co", "17:30")


@pytest.mark.parametrize("token", ["%", "a%2", "%zz", "%FF", "%C3", "%ED%A0%80", "\ud800"])
def test_what_is_no_percent_encoded_utf8_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match=r"percent"):
        tokens.decode(token)
