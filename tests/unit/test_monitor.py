"""The monitor's screen fits its terminal, whatever is reported, and shows faults first."""

import io
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from feedsvc.commands.monitor.history import RateHistory, name_of, spark
from feedsvc.commands.monitor.screen import Screen
from feedsvc.commands.monitor.source import Glance

TIMES = {"mean_ms": 1.0, "p50_ms": 0.05, "p95_ms": 20.0, "p99_ms": 12_345.0}


def endpoint(dataset: str | None, route: str = "/v1/feeds/{dataset}") -> dict[str, Any]:
    asked = {"count": 10, "rate": 1.5, "errors": 1, "error_rate": 0.1, **TIMES}
    return {"method": "GET", "route": route, "dataset": dataset, **asked, "first_byte": TIMES}


def pool(name: str, in_use: int = 1) -> dict[str, Any]:
    return {
        "name": name, "workers": 2, "size": 8, "in_use": in_use, "in_use_by_exports": 1,
        "waiting": 3, "waits": TIMES, "refused": {"full": 0, "vain": 2, "late": 0},
        "suggestion": {"size": 12, "why": ""},
    }  # fmt: skip


def glance(at: float = 0.0, count: int = 100, *, endpoints: int = 20, troubles: int = 0) -> Glance:
    now = {
        "workers": 2, "leaving": 1, "rate": 12.0, "error_rate": 0.25, "first_byte": TIMES,
        "running": 7, "cpu_share": 1.5, "memory_bytes": 3e8, "loop_lag_ms": 2.0,
        "cache": {"pages": 10, "bytes": 1e6},
        "live": {
            "subscribers": 4_900, "most": 5_000, "catching_up": 12, "cohorts": 50,
            "lag_p99_ms": 61.2, "failing_s": 7.0,
        },
        "endpoints": [endpoint(f"a-dataset-with-a-long-name-{n}") for n in range(endpoints)],
    }  # fmt: skip
    checks: list[dict[str, Any]] = [
        {
            "name": f"part{n}",
            "state": "down",
            "what": "It is broken in a way that takes long to say.",
        }
        for n in range(troubles)
    ]
    log = {"bytes": 12 << 20, "oldest_s": 7_560.0, "unsealed": 2, "blocked_s": 4_000.0}
    checks.append({"name": "changes", "state": "ok", "what": "All is well.", "figures": log})
    views = {
        "app.sums": {"age_s": 61.0, "took_s": 1.0, "failures": 0},
        "app.months": {"age_s": 400.0, "took_s": 0.1, "failures": 3},
        "app.new": {"age_s": None, "took_s": None, "failures": 1},
    }
    found = {"covered index": 2, "bloat": 1}
    for name, figures in (("refreshes", {"views": views}), ("upkeep", {"found": found})):
        checks.append({"name": name, "state": "ok", "what": "Well.", "figures": figures})
    alerts = [
        {
            "name": f"alert{n}", "state": "firing", "silenced_until": None, "value": 0.123456,
            "comparison": ">", "threshold": 0.1, "severity": "critical", "todo": "Do something.",
        }
        for n in range(troubles)
    ]  # fmt: skip
    return Glance(
        at,
        {
            "metrics": {
                "from": 0.0, "to": at, "now": now, "totals": {"count": count},
                "cache": {"hit_ratio": 0.9},
                "queries": {"slow": 12, "repeated": 1_340, "lost_ms": 95_000.0},
                "live": {"resets": {"rights": 2, "expired": 1}},
            },
            "pools": {
                "pools": [pool(name) for name in ("read", "write", "analytics", "bulk")],
                "replicas": [{"name": "db2:5432", "state": "lags", "lag_ms": 7_000}],
            },
            "cache": {"memory": {"pages": 1, "bytes": 1}, "log_read": False, "redis": "away"},
            "health": {"state": "degraded" if troubles else "ok", "checks": checks},
            "alerts": {"alerts": alerts},
        },
    )  # fmt: skip


def drawn(reported: Sequence[Glance], width: int, height: int, *, plain: bool = False) -> list[str]:
    history = RateHistory()
    for each in reported:
        history.add(each)
    console = Console(
        width=width, height=height, record=True, color_system=None, file=io.StringIO()
    )
    console.print(Screen("http://service", width, height, plain).draw(reported[-1], history))
    return console.export_text().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (160, 45), (120, 24)])
@pytest.mark.parametrize("troubles", [0, 1, 9])
def test_it_is_never_wider_or_higher_than_the_terminal(
    width: int, height: int, troubles: int
) -> None:
    reported = [glance(float(n), 100 * n, troubles=troubles) for n in range(300)]
    lines = drawn(reported, width, height)
    assert max(map(len, lines)) <= width
    assert len(lines) <= height
    text = "\n".join(lines)
    for what in ("read", "write", "analytics", "bulk", "a-dataset", "2 (+1) workers", "db2:5432"):
        assert what in text, what


def test_trouble_comes_before_all_else_and_is_counted_where_it_is_too_much() -> None:
    lines = drawn([glance(troubles=9)], 80, 24)
    assert lines[0].startswith(" DEGRADED ")
    assert lines[3].startswith("FIRING alert0: 0.123 > 0.1. Do something.")
    assert any(line.startswith("and ") and line.endswith(" more") for line in lines)


def test_slow_queries_and_repeated_requests_have_a_line() -> None:
    (line,) = (line for line in drawn([glance()], 80, 30) if line.startswith("queries "))
    assert line.strip() == "queries 12 slow  1,340 repeated (1.6 min lost) in 1 h"


def test_the_change_log_has_a_line() -> None:
    line = next(line for line in drawn([glance()], 80, 24) if line.startswith("log "))
    assert line.strip() == "log 12 MB  2.1 h back  2 unsealed  trim blocked 1.1 h"


def test_views_and_upkeep_have_a_line() -> None:
    line = next(line for line in drawn([glance()], 130, 30) if line.startswith("views "))
    assert line.rstrip() == (
        "views 6.7 min old (app.months)  1 failing  upkeep 2 covered index, 1 bloat"
    )
    older = glance()
    older.answers["health"]["checks"] = []
    assert not any(line.startswith("views ") for line in drawn([older], 130, 30))


def test_live_feeds_have_a_line() -> None:
    line = next(line for line in drawn([glance()], 130, 24) if line.startswith("live "))
    assert line.strip() == (
        "live 4,900 subscribers  50 groups  p99 61.2 ms  3 resets in 1 h  12 behind  unread 7 s"
    )
    single = glance()
    live = single.answers["metrics"]["now"]["live"]
    single.answers["metrics"]["now"]["live"] = live | {"subscribers": 1, "cohorts": 1}
    assert any("live 1 subscriber  1 group  " in line for line in drawn([single], 130, 24))
    older = glance()
    del older.answers["metrics"]["now"]["live"], older.answers["metrics"]["live"]
    assert not any(line.startswith("live ") for line in drawn([older], 130, 24))


@pytest.mark.parametrize("width", [80, 160])
def test_a_lacking_report_is_left_out_and_named(width: int) -> None:
    silent = Glance(0.0, {}, {"metrics": "no answer within 3 s", "health": "no answer within 3 s"})
    lines = drawn([glance(), silent], width, 24)
    assert lines[0].startswith(" DOWN ")
    assert any("metrics, health: no answer" in line for line in lines)
    for lacking in ("alerts", "cache", "pools", "health"):
        reported = {
            name: reported for name, reported in glance().answers.items() if name != lacking
        }
        some = Glance(0.0, reported, {lacking: "404: Not found"})
        assert any(f"{lacking}: 404" in line for line in drawn([some], width, 24))


@pytest.mark.parametrize("width", [80, 100, 149])
def test_a_figure_that_has_no_room_is_left_out_and_none_is_cut(width: int) -> None:
    title, figures, *_ = drawn([glance()], width, 24)
    assert "…" not in title + figures
    assert "% CPU" in figures


def test_get_and_head_of_one_route_are_distinct() -> None:
    assert name_of(endpoint("clients")) == "clients"
    assert name_of({**endpoint("clients"), "method": "HEAD"}) == "HEAD clients"


def test_a_terminal_of_ascii_gets_nothing_else() -> None:
    lines = drawn([glance(float(n)) for n in range(30)], 80, 24, plain=True)
    # The tables' lines are rich's own, which knows such terminals itself.
    assert not {*"▁▂▃▄▅▆▇█░"} & {*"".join(lines)}


def test_bars_are_in_proportion_to_the_highest_and_gaps_are_gaps() -> None:
    assert spark([0, 1, None, 8, 4], 6, plain=False) == " ▁▂ █▅"
    assert spark([0, 0], 2, plain=False) == "▁▁"
    assert spark(range(100), 3, plain=True) == "###"
    assert spark([], 3, plain=False) == "   "


def test_the_rate_is_of_the_last_seconds_also_when_a_minute_drops_out() -> None:
    history = RateHistory()
    for second in range(20):
        history.add(glance(float(second), 50 * second))
    assert history.rates[-1] == pytest.approx(50)
    later = glance(20.0, 10)
    later.answers["metrics"]["from"] = 60.0
    history.add(later)
    assert history.rates[-1] == 12.0, "what the service itself says of the last minute"


@pytest.mark.parametrize(
    ("dataset", "route", "name"),
    [
        ("clients", "/v1/feeds/{dataset}", "clients"),
        ("clients", "/v1/feeds/{dataset}/{key}", "clients/{key}"),
        (None, "/v1/feeds", "/feeds"),
        (None, "/api/performance/health", "/health"),
        (None, "/live", "/live"),
    ],
)
def test_endpoints_have_short_names(dataset: str | None, route: str, name: str) -> None:
    assert name_of(endpoint(dataset, route)) == name
