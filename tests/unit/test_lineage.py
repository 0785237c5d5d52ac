"""The lives of a database that may be read."""

from pathlib import Path

import pytest

from feedsvc.backends.postgres.lineage import Lineage, OldPrimaryError, Origin
from feedsvc.backends.postgres.servers import each_host

FIRST, SECOND = Origin(7, 5, 1), Origin(7, 5, 2)
OTHER = Origin(8, 5, 9)


def test_a_lower_timeline_than_was_seen_is_refused() -> None:
    lineage = Lineage()
    assert lineage.check(FIRST)
    assert not lineage.check(FIRST)
    assert lineage.check(SECOND)
    assert lineage.is_past(FIRST)
    with pytest.raises(OldPrimaryError, match="timeline 1, while timeline 2"):
        lineage.check(FIRST)
    assert lineage.newest == SECOND


def test_a_standby_says_nothing_of_it() -> None:
    lineage = Lineage()
    lineage.check(SECOND)
    assert not lineage.check(FIRST._replace(timeline=None))
    assert lineage.newest == SECOND


def test_another_cluster_follows_once_the_first_has_gone() -> None:
    now = 0.0
    lineage = Lineage(clock=lambda: now)
    lineage.check(SECOND)
    now = 2.0
    with pytest.raises(OldPrimaryError, match="another database"):
        lineage.check(OTHER)
    lineage.check(SECOND)
    now = 6.0
    assert lineage.check(OTHER)
    assert lineage.newest == OTHER


def test_a_worker_knows_what_another_one_saw(tmp_path: Path) -> None:
    one, other = Lineage(tmp_path), Lineage(tmp_path)
    one.check(SECOND)
    other.catch_up()
    with pytest.raises(OldPrimaryError):
        other.check(FIRST)
    late = Lineage(tmp_path)
    late.check(FIRST)  # it did not look first, and must not take back what is known
    assert late.newest == SECOND
    again = Lineage(tmp_path)
    again.catch_up()
    assert again.newest == SECOND


def test_the_text_of_an_origin_is_that_of_the_cache() -> None:
    assert str(Origin(7, 5, 26)) == "7/5/0000001A"
    assert str(Origin(7, 5, None)) == "7/5"


@pytest.mark.parametrize(
    ("url", "each"),
    [
        ("postgresql://a:b@one/app", ["postgresql://a:b@one/app"]),
        (
            "postgresql://a:b@one:1,[::1]:2/app?ssl=on",
            ["postgresql://a:b@one:1/app?ssl=on", "postgresql://a:b@[::1]:2/app?ssl=on"],
        ),
        (
            "postgresql://a:b@/app?host=one,two&port=7",
            ["postgresql://a:b@/app?host=one&port=7", "postgresql://a:b@/app?host=two&port=7"],
        ),
    ],
)
def test_a_url_of_several_hosts_is_one_for_each(url: str, each: list[str]) -> None:
    assert each_host(url) == each
