"""Other advisers' rules as they are written anew: the answers of their documentation and tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from feedsvc.backends.postgres.advice.model import WorkloadStatement
from tests.performance.advisers.comparison import OURS, outcomes
from tests.performance.advisers.dexter import Dexter, Relation, columns_named
from tests.performance.advisers.index_advisor import index_advisor
from tests.performance.advisers.subjects import foreign
from tests.performance.advisers.trials import without_values
from tests.support.foreign_workloads import SCHEMAS
from tests.support.servers import connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg

    from feedsvc.backends.postgres.advice.designs import IndexDesign
    from tests.integration.conftest import NewDatabase

# The table of Dexter's tests, with the columns that these statements name.
POSTS = """
    CREATE UNLOGGED TABLE posts (id int, blog_id int, user_id int, indexed int);
    INSERT INTO posts SELECT n, n % 1000, n % 10, n FROM generate_series(1, 100000) AS n;
    CREATE INDEX ON posts (indexed);
    ANALYZE;
"""
# The tables of index_advisor's documentation.
BOOKS = """
    CREATE TABLE author (id serial PRIMARY KEY, name text NOT NULL);
    CREATE TABLE publisher (id serial PRIMARY KEY, name text NOT NULL, corporate_address text);
    CREATE TABLE book (
        id serial PRIMARY KEY, author_id int NOT NULL REFERENCES author,
        publisher_id int NOT NULL REFERENCES publisher, title text
    );
    CREATE TABLE review (
        id serial PRIMARY KEY, book_id int REFERENCES book, body text NOT NULL
    );
"""
REVIEWS = """
    SELECT book.id, book.title, publisher.name AS publisher_name, author.name AS author_name,
        review.body AS review_body
    FROM book JOIN publisher ON book.publisher_id = publisher.id
    JOIN author ON book.author_id = author.id JOIN review ON book.id = review.book_id
    WHERE author.id = $1 AND publisher.id = $2
"""


@pytest.fixture(scope="module")
async def library(new_database: NewDatabase) -> AsyncIterator[asyncpg.Connection]:
    async with new_database(script=POSTS + BOOKS) as url, connected(url) as connection:
        yield connection


def statement(sql: str) -> WorkloadStatement:
    return WorkloadStatement(sql, sql, "pg_stat_statements", 0, 0.0, 0.0, None, None)


def texts(designs: list[IndexDesign]) -> set[str]:
    return {f"{each.table} ({', '.join(each.keys)})" for each in designs}


@pytest.mark.parametrize(
    ("condition", "keys"),
    [
        ("id = $1", "id"),
        ("indexed = 1", None),
        ("user_id = 1 AND blog_id = 2", "user_id, blog_id"),
        ("user_id = 1 AND blog_id < 10", "blog_id"),
    ],
)
async def test_dexter_takes_what_halves_the_cost(
    library: asyncpg.Connection, condition: str, keys: str | None
) -> None:
    sql = f"SELECT * FROM public.posts WHERE {condition}"
    found = await Dexter(library, without_values(library)).propose([statement(sql)])
    assert texts(found) == (set() if keys is None else {f"public.posts ({keys})"})


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ('SELECT *, "On" FROM shop.item i WHERE i.name = $1', {"item.name", "item.On"}),
        ("SELECT count(*) AS day FROM shop.item WHERE id = $1::day", {"item.id"}),
        ("SELECT 'name' FROM shop.item JOIN shop.sale USING (id) ORDER BY day", {"sale.day"}),
        ("UPDATE shop.item SET name = $1 WHERE id = 1", {"item.id"}),
        ("SELECT id FROM shop.item, shop.sale", {"item.id", "sale.id"}),
        ("SELECT total FROM shop.sums", {"sale.day", "sale.id"}),
    ],
)
def test_dexter_tries_the_columns_that_a_statement_names(sql: str, columns: set[str]) -> None:
    relations = {
        f"shop.{name}": Relation(f"shop.{name}", f"shop.{name}", own, below, ())
        for name, own, below in (
            ("item", ("id", "name", "On", "count"), ()),
            ("sale", ("id", "day"), ()),
            ("sums", ("total",), ("shop.sale",)),
        )
    }
    found = {
        f"{table.removeprefix('shop.')}.{name}" for table, name in columns_named(sql, relations)
    }
    assert found == columns


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT book.id FROM book WHERE title = $1", {"public.book (title)"}),
        (
            REVIEWS,
            {"public.book (author_id)", "public.book (publisher_id)", "public.review (book_id)"},
        ),
    ],
)
async def test_index_advisor_takes_the_columns_that_a_plan_uses(
    library: asyncpg.Connection, sql: str, found: set[str]
) -> None:
    assert texts(await index_advisor(library, [statement(sql)])) == found


@pytest.mark.soak
@pytest.mark.parametrize("name", SCHEMAS)
async def test_no_other_makes_a_workload_as_cheap_as_ours(admin_url: str, name: str) -> None:
    async with foreign(admin_url, name) as subject:
        found = await outcomes(subject)
    assert min(found, key=lambda each: found[each].total) == OURS
