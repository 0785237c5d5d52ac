"""Conditions of plans: an alias is found as the server writes it, quoted where it must be."""

import pytest

from feedsvc.backends.postgres.advice.deparsed import mentions, quoted_columns_of, unqualified


@pytest.mark.parametrize(
    ("alias", "text", "column"),
    [
        ("clients", "(clients.email = $1)", "email"),
        ("order", '("order"."user" = $1)', '"user"'),
        ("Album", '("Album"."ArtistId" = $1)', '"ArtistId"'),
        ('an "odd" one', '("an ""odd"" one".id = $1)', "id"),
    ],
)
def test_columns_of_an_alias_are_found(alias: str, text: str, column: str) -> None:
    assert mentions(text, alias)
    assert quoted_columns_of(text, alias) == {column}
    assert unqualified(text, alias) == f"({column} = $1)"


def test_no_part_of_another_name_is_an_alias() -> None:
    assert not mentions('("reorder".id = border.id)', "order")
    assert not mentions("(note = 'order.id')", "order")
