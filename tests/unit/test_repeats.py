"""Repeated requests are found by principal, pattern and values; innocent patterns are not."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import pytest

from feedsvc.core.events import Observers, RequestEnded, RequestsRepeated
from feedsvc.core.principal import Principal
from feedsvc.operations.performance.repeats import MANY, MOST_RUNS, WINDOW, RequestRepeats
from feedsvc.operations.performance.replacement import replacement
from tests.support.datasets import DATASET, ID

FEED: Final = "/v1/feeds/{dataset}"
ROW: Final = "/v1/feeds/{dataset}/{key}"
ANN: Final = Principal("rosewood", "member", None, 0.0, subject="ann")
THINGS: Final = replace(DATASET, filters={"id": ("eq", "in", "gt"), "kind": ("eq",)})
OTHERS: Final = {name: replace(THINGS, name=name) for name in ("a", "b", "c", "d", "e")}


class Watched:
    """The observer with its findings; each request ends 0.1 s behind the one before it."""

    def __init__(self) -> None:
        observers = Observers()
        self.found: list[RequestsRepeated] = []
        observers.add(RequestsRepeated, self.found.append)
        self.repeats = RequestRepeats({"things": THINGS, **OTHERS}, observers)
        self.at = 1_000.0

    def ask(self, query: str, **changes: Any) -> None:
        self.at += 0.1
        plain: dict[str, Any] = {
            "at": self.at, "request_id": "x", "method": "GET", "route": FEED, "guarded": True,
            "status": 200, "result": "complete", "why": None, "seconds": 0.25, "first_byte": 0.1,
            "stages": {}, "address": "192.0.2.1", "principal": ANN, "dataset": "things",
            "format": "ndjson", "query": query, "rows": 1, "size": 10,
        }  # fmt: skip
        self.repeats.observe(RequestEnded(**{**plain, **changes}))

    @property
    def requests(self) -> int:
        return sum(each.requests for each in self.found)


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_rows_by_key_are_counted_from_the_first_on(watched: Watched) -> None:
    for number in range(100):
        watched.ask(f"key={number}&columns=id", route=ROW)
    assert watched.requests == 100
    assert [each.begins for each in watched.found] == [True, *[False] * (100 - MANY)]
    assert {each[1:4] for each in watched.found} == {("row-by-key", "things", "")}
    assert sum(each.seconds for each in watched.found) == pytest.approx(99 * 0.25)


def test_a_page_for_each_value_of_one_filter_is_counted_beside_another_filter(
    watched: Watched,
) -> None:
    for number in range(40):
        watched.ask(f"id.eq={number}&limit=50&kind=a%20b&order=key")
    assert watched.requests == 40
    assert {each[1:4] for each in watched.found} == {("page-by-filter", "things", "id")}


def test_a_loop_of_small_pages_is_counted(watched: Watched) -> None:
    watched.ask("limit=1")
    for number in range(30):
        watched.ask(f"limit=1&after={number}")
    assert watched.requests == 30
    assert {each.pattern for each in watched.found} == {"small-pages"}


def test_a_run_that_pauses_counts_no_request_twice(watched: Watched) -> None:
    for number in range(2 * MANY):
        watched.at += WINDOW * (number == MANY)
        watched.ask(f"key={number}", route=ROW)
    assert [each.begins for each in watched.found] == [True, True]
    assert watched.requests == 2 * MANY


def test_what_was_counted_counts_no_more_behind_a_pause(watched: Watched) -> None:
    for number in range(MANY):
        watched.ask(f"key={number}", route=ROW)
    later = watched.at + WINDOW - 1.5  # within the window of the last, and not of the first
    for number in range(MANY - 1):
        watched.ask(f"key=later{number}", route=ROW, at=later)
    assert watched.requests == MANY


def test_a_value_that_was_counted_counts_no_more_while_it_repeats(watched: Watched) -> None:
    for number in range(MANY + 100):
        watched.ask(f"key={min(number, MANY)}", route=ROW)
    assert watched.requests == MANY + 1


def test_each_run_is_of_one_principal_at_one_address(watched: Watched) -> None:
    for number in range(MANY - 1):
        for who in (ANN, replace(ANN, subject="bob")):
            for address in ("192.0.2.1", "192.0.2.2"):
                watched.ask(f"key={number}-{address}", route=ROW, principal=who, address=address)
    assert not watched.found


def polling(watched: Watched) -> None:
    """One page again and again, with If-None-Match."""
    for _ in range(100):
        watched.ask("id=5&limit=100", status=304, rows=0)


def visitors(watched: Watched) -> None:
    """A row each for many principals."""
    for number in range(100):
        watched.ask(f"key={number}", route=ROW, principal=replace(ANN, subject=str(number)))


def dashboard(watched: Watched) -> None:
    """Five feeds, again and again."""
    for _ in range(30):
        for name in OTHERS:
            watched.ask("limit=10&kind=x", dataset=name)


def paging(watched: Watched) -> None:
    """Pages of a hundred, one behind the other."""
    for number in range(200):
        watched.ask(f"limit=100&after={number}&kind=x")


def retries(watched: Watched) -> None:
    """What was refused or failed, with other keys too."""
    for number in range(100):
        watched.ask(f"key={number}", route=ROW, status=429, result="refused")
        watched.ask(f"id={number}", status=503, result="failed")


def resumed_exports(watched: Watched) -> None:
    """An export that breaks off and goes on behind its last row."""
    for number in range(60):
        watched.ask(f"format=csv&after={number}&export=00000000-0000-0000-0000-{number:012}")
        watched.ask(f"format=sse&kind=x&Last-Event-ID={number}")


def reconnects(watched: Watched) -> None:
    """Live answers that are resumed."""
    for number in range(100):
        watched.ask(f"id={number}&live=1&Last-Event-ID={number}")
        watched.ask(f"feed=things&since={number}", route="/v1/live", dataset=None)


def deltas(watched: Watched) -> None:
    """Each delta since the one before it."""
    for number in range(100):
        watched.ask(f"id={number}&since={number}&wait=10")


def same_row(watched: Watched) -> None:
    """One row by its key, again and again."""
    for _ in range(100):
        watched.ask("key=7", route=ROW)


def warming(watched: Watched) -> None:
    """Three rows and three filtered pages, in turn."""
    for number in range(90):
        watched.ask(f"key={number % 3}", route=ROW)
        watched.ask(f"id={number % 3}&limit=10")


def unhurried(watched: Watched) -> None:
    """A reader that opens a row every two seconds."""
    for number in range(100):
        watched.at += 2
        watched.ask(f"key={number}", route=ROW)


def ranges(watched: Watched) -> None:
    """Batches by `in`, and a range that moves."""
    for number in range(100):
        watched.ask(f"id.in={number},{number + 1}&limit=100")
        watched.ask(f"id.gt={number}&limit=100")


@pytest.mark.parametrize(
    "pattern",
    [
        polling, visitors, dashboard, paging, retries, resumed_exports, reconnects, deltas,
        same_row, warming, unhurried, ranges,
    ],
)  # fmt: skip
def test_innocent_patterns_are_not_found(watched: Watched, pattern: Any) -> None:
    pattern(watched)
    assert not watched.found


def test_memory_is_bounded_and_the_least_used_falls_out(watched: Watched) -> None:
    for number in range(2 * MOST_RUNS):
        watched.ask("key=1", route=ROW, principal=replace(ANN, subject=str(number)))
        if number % (2 * MOST_RUNS // MANY) == 0:
            watched.ask(f"key={number}", route=ROW, at=1_000.0 + number / 1e6)
    assert watched.repeats.held == MOST_RUNS
    assert watched.found, "a run that is in use stays"


def strings(thing: Any) -> Iterator[str]:
    """All strings that can be reached in what is held."""
    if isinstance(thing, str):
        yield thing
    elif isinstance(thing, dict):
        for key, value in thing.items():
            yield from strings(key)
            yield from strings(value)
    elif isinstance(thing, tuple | list):
        for each in thing:
            yield from strings(each)
    else:
        for name in getattr(thing, "__slots__", ()):
            yield from strings(getattr(thing, name))


def test_no_value_is_held(watched: Watched) -> None:
    for number in range(2 * MANY):
        watched.ask(f"key=canary{number}", route=ROW)
        watched.ask(f"id=canary{number}&kind=canary")
        watched.ask(f"kind=canary&limit=1&after=canary{number}")
    assert {each.pattern for each in watched.found} == {
        "row-by-key", "page-by-filter", "small-pages"
    }  # fmt: skip
    assert "canary" not in repr(watched.found)
    assert "canary" not in "".join(strings(watched.repeats._runs))


def test_the_replacement_is_one_that_the_dataset_offers() -> None:
    two = replace(THINGS, key=(ID, replace(ID, name="part")))
    assert [
        replacement("row-by-key", THINGS, "").statement,
        replacement("row-by-key", two, "").statement,
        replacement("page-by-filter", THINGS, "id").statement,
        replacement("page-by-filter", THINGS, "kind").statement,
        replacement("small-pages", THINGS, "").statement,
    ] == [
        "GET /v1/feeds/things?id.in={id},{id},…",
        "GET /v1/feeds/things",
        "GET /v1/feeds/things?id.in={id},{id},…",
        "GET /v1/feeds/things",
        "GET /v1/feeds/things?limit=1000",
    ]
