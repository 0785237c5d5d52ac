"""Datasets: what a declaration means, and mistakes that name file and key."""

from collections.abc import Callable
from pathlib import Path

import pytest

from feedsvc.datasets.dataset import (
    Column,
    DatasetsError,
    Declaration,
    declarations,
    order_columns,
    quote_identifier,
    read,
)
from feedsvc.datasets.secret_columns import secret_looking

Write = Callable[[str], Path]

MINIMAL = '[feed]\nrelation = "app.things"\nkey = ["id"]\n'


def column(
    name: str, kind: str = "int8", category: str = "N", labels: tuple[str, ...] = ()
) -> Column:
    return Column(name, kind, False, f"pg_catalog.{kind}", kind, category, labels)


COLUMNS = {name: column(name) for name in ("id", "part", "at")}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> Path:
        file = tmp_path / "feeds.toml"
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        return file

    return written


@pytest.mark.parametrize(
    ("order", "key", "meant"),
    [
        ([], ["id"], [("id", False)]),
        (["at"], ["id"], [("at", False), ("id", False)]),
        (["-at"], ["id"], [("at", True), ("id", True)]),
        (["-at", "part"], ["id"], [("at", True), ("part", False), ("id", False)]),
        (["at", "-part"], ["id"], [("at", False), ("part", True), ("id", True)]),
        (["-at"], ["part", "id"], [("at", True), ("part", True), ("id", True)]),
        (["-part"], ["part", "id"], [("part", True), ("id", True)]),
        (["id", "at"], ["id"], [("id", False), ("at", False)]),
    ],
)
def test_an_order_ends_with_the_key_in_its_last_columns_direction(
    order: list[str], key: list[str], meant: list[tuple[str, bool]]
) -> None:
    parts = order_columns(order, key, COLUMNS)
    assert [(part.column.name, part.descending) for part in parts] == meant


def test_an_order_over_a_column_that_there_is_not_raises() -> None:
    with pytest.raises(KeyError, match="missing"):
        order_columns(["-missing"], ["id"], COLUMNS)


@pytest.mark.parametrize(
    ("relation", "parts"),
    [
        ("app.things", ("app", "things")),
        ("App.Things", ("App", "Things")),
        ('"my app"."the ""things"""', ("my app", 'the "things"')),
        ('"a.b".c', ("a.b", "c")),
        ("ünï.çödé", ("ünï", "çödé")),
    ],
)
def test_a_relation_is_a_schema_and_a_name(relation: str, parts: tuple[str, str]) -> None:
    assert Declaration(relation=relation, key=("id",)).relation_parts() == parts


@pytest.mark.parametrize(
    "relation",
    [
        "",
        "things",
        ".things",
        "app.",
        "a.b.c",
        "app things",
        'app."',
        '"".x',
        "a.b; DROP",
        'a."b"c',
    ],
)
def test_what_is_no_schema_and_name_is_refused(relation: str) -> None:
    with pytest.raises(ValueError, match=r"schema\.name"):
        Declaration(relation=relation, key=("id",)).relation_parts()


@pytest.mark.parametrize(
    ("name", "quoted"), [("id", '"id"'), ('a"b', '"a""b"'), ('"; DROP', '"""; DROP"')]
)
def test_an_identifier_cannot_leave_its_quotes(name: str, quoted: str) -> None:
    assert quote_identifier(name) == quoted


def test_a_minimal_declaration_has_cautious_defaults(write: Write) -> None:
    declared = declarations(write(MINIMAL))["feed"]
    assert not declared.shared
    assert not declared.shared_with_clients
    assert declared.pool == "bulk"
    assert declared.filters == {}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (MINIMAL + "colour = 1", "feed.colour: there is no such key"),
        ('[feed]\nkey = ["id"]', "feed.relation: "),
        ('[feed]\nrelation = "a.b"\nkey = []', "feed.key: "),
        ('[feed]\nrelation = "a.b"\nkey = "id"', "feed.key: "),
        (MINIMAL + 'pool = "huge"', "feed.pool: "),
        (MINIMAL + "ranges = 0", "feed.ranges: "),
        (MINIMAL + "ranges = 5", "feed.ranges: "),
        (MINIMAL + 'ranges = "all"', "feed.ranges: "),
        (MINIMAL + 'roles = ["root"]', "feed.roles.0: "),
        (MINIMAL + "columns = []", "feed.columns: "),
        (MINIMAL + '[feed.filters]\nid = ["like"]', "feed.filters.id.0: "),
        (MINIMAL + '[feed.orders]\n"No Name" = ["id"]', "feed.orders.No Name: "),
        (MINIMAL + "[feed.orders]\nnewest = []", "feed.orders.newest: "),
        (MINIMAL.replace("[feed]", "[Feed]"), "Feed: "),
        (MINIMAL.replace("[feed]", '["a/b"]'), "a/b: "),
        ("feed = 1", "feed: "),
        ("[feed", ""),
        ("# \udcff", ""),
    ],
)
def test_a_mistake_is_named_with_file_and_key(write: Write, text: str, place: str) -> None:
    file = write(text)
    with pytest.raises(DatasetsError) as caught:
        declarations(file)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{file}: {place}")


def test_each_mistake_has_a_line(write: Write) -> None:
    with pytest.raises(DatasetsError) as caught:
        declarations(write("[a]\nx = 1\n[b]\ny = 1"))
    places = {line.split(": ")[1] for line in str(caught.value).splitlines()}
    assert places == {"a.relation", "a.x", "b.relation", "b.y"}


def test_datasets_without_a_mistake_are_read_beside_those_with_one(write: Write) -> None:
    found, mistakes = read(write(MINIMAL + '[Bad]\nrelation = "a.b"\n[other]\nrelation = 1'))
    assert list(found) == ["feed"]
    assert [line.split(": ")[1] for line in mistakes] == ["Bad", "other.relation"]


@pytest.mark.parametrize(
    "name",
    ["password", "pwd_hash", "apiKey", "IBAN", "resetToken", "card_number", "client-secret"],
)
def test_a_column_named_like_a_secret_is_noticed(name: str) -> None:
    assert secret_looking(["id", name]) == [name]


@pytest.mark.parametrize("name", ["pinned", "spin", "key", "tokenized", "hashtag", "card"])
def test_a_column_with_such_letters_in_another_word_is_not(name: str) -> None:
    assert secret_looking([name]) == []


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetsError, match=r"absent\.toml: No such file"):
        declarations(tmp_path / "absent.toml")


ALL = ("eq", "ne", "lt", "lte", "gt", "gte", "in")


@pytest.mark.parametrize(
    ("known", "ops"),
    [
        (column("n"), (*ALL, "is")),
        (column("t", "text", "S"), (*ALL, "prefix", "is")),
        (column("e", "mood", "E", ("glad",)), (*ALL, "is")),
        (column("j", "jsonb", "U"), ("is",)),
        (column("a", "_int4", "A"), ("is",)),
    ],
)
def test_a_column_offers_the_operators_that_make_sense(known: Column, ops: tuple[str, ...]) -> None:
    assert known.ops() == ops


@pytest.mark.parametrize(
    ("known", "value", "admitted"),
    [
        (column("n"), "7", True),
        (column("n"), "seven", False),
        (column("t", "text", "S"), "", True),
        (column("t", "text", "S"), "\0", False),
        (column("e", "mood", "E", ("glad",)), "glad", True),
        (column("e", "mood", "E", ("glad",)), "sad", False),
        (column("j", "jsonb", "U"), "{}", False),
    ],
)
def test_a_column_admits_what_its_type_can_hold(known: Column, value: str, admitted: bool) -> None:
    assert known.admits(value) is admitted
