"""Alerts from a file: every mistake by its key; firing, hysteresis and recovery by their times."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedsvc.core.process_stats import (
    AuditState,
    ChangeLogState,
    FollowedState,
    PoolState,
    ProcessStats,
    StandbyState,
    ViewState,
)
from feedsvc.datasets.dataset import declarations
from feedsvc.operations.alerts.figures import FIGURES, AlertInput, Selector
from feedsvc.operations.alerts.rules import AlertsError, KnownNames, Rule, load
from feedsvc.operations.alerts.states import AlertState, step
from feedsvc.operations.health.checks import CHECKS
from feedsvc.operations.performance.figures import Figures
from feedsvc.operations.performance.report import Span
from feedsvc.web.application import patterns
from tests.support.service import REPOSITORY

KNOWN = KnownNames(["clients", "budgets"], ["/v1/feeds/{dataset}"], ["read", "bulk"])
GOOD = """
[failing]
figure = "error_rate"
threshold = 0.02
severity = "critical"
todo = "Look."
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "alerts.toml"
    file.write_text(text)
    return file


def test_the_projects_own_alerts_are_right() -> None:
    datasets = declarations(REPOSITORY / "config" / "datasets.toml")
    known = KnownNames(datasets, patterns(), ["read", "bulk", "analytics", "write"],
                  [check.name for check in CHECKS])  # fmt: skip
    rules = load(REPOSITORY / "config" / "alerts.toml", known)
    assert {"database-away", "failing", "slow", "loop-behind"} <= set(rules)


@pytest.mark.parametrize(
    ("change", "place", "what"),
    [
        ('figure = "eror_rate"', "failing.figure", "there is no 'eror_rate'; there are error_rate"),
        ('comparison = "=="', "failing.comparison", "Input should be '>'"),
        ('threshold = "much"', "failing.threshold", "Input should be a valid number"),
        ("threshold = nan", "failing.threshold", "finite"),
        ('for = "soon"', "failing.for", "a duration is a number and a unit"),
        ('for = "31d"', "failing.for", "a duration is a number and a unit"),
        ("for = 60", "failing.for", "a duration is a number and a unit"),
        ("clear = 0.03", "failing.clear", "error_rate is better below 0.02"),
        ('comparison = "<"\nclear = 0.01', "failing.clear", "error_rate is better above 0.02"),
        ('severity = "bad"', "failing.severity", "Input should be 'critical'"),
        ('todo = " "', "failing.todo", "at least 1 character"),
        ('dataset = "client"', "failing.dataset", "there is no 'client'; there are budgets"),
        ('route = "/v1"', "failing.route", "there is no '/v1'; there are /v1/feeds"),
        ('pool = "read"', "failing.pool", "error_rate is not of one pool"),
        ('treshold = 1', "failing.treshold", "there is no such key"),
    ],
)  # fmt: skip
def test_each_mistake_is_named_with_its_file_and_key(
    tmp_path: Path, change: str, place: str, what: str
) -> None:
    keys = {line.partition(" ")[0] for line in change.splitlines()}
    kept = [line for line in GOOD.strip().splitlines() if line.partition(" ")[0] not in keys]
    file = written(tmp_path, "\n".join([*kept, change]))
    with pytest.raises(AlertsError) as caught:
        load(file, KNOWN)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{file}: {place}: ")
    assert what in line


@pytest.mark.parametrize("missing", ["figure", "threshold", "severity", "todo"])
def test_what_must_be_there(tmp_path: Path, missing: str) -> None:
    kept = [line for line in GOOD.splitlines() if not line.startswith(missing)]
    with pytest.raises(AlertsError, match=rf"failing\.{missing}: it must be there"):
        load(written(tmp_path, "\n".join(kept)), KNOWN)


@pytest.mark.parametrize("text", [b"[failing", b"[Failing]\n", b"\xff"])
def test_a_file_that_can_not_be_read(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "alerts.toml"
    file.write_bytes(text)
    with pytest.raises(AlertsError, match=r"alerts\.toml: "):
        load(file, KNOWN)
    with pytest.raises(AlertsError, match="No such file"):
        load(tmp_path / "nothing.toml", KNOWN)


def rule(**changes: Any) -> Rule:
    plain = {"figure": "error_rate", "threshold": 10, "severity": "info", "todo": "x"}
    return Rule.model_validate({**plain, **changes})


def phases(of: Rule, values: list[float | None], passed: float = 10) -> list[str]:
    state = AlertState()
    seen: list[str] = []
    for number, value in enumerate(values):
        state = step(of, state, value, passed, number * passed)
        seen.append(state.phase)
    return seen


def test_it_fires_at_once_without_for() -> None:
    assert phases(rule(), [10, 11]) == ["ok", "firing"]


def test_it_must_hold_for_so_long_and_without_a_break() -> None:
    held = rule(**{"for": "30s"})
    assert phases(held, [11, 11, 11, 11]) == ["pending"] * 3 + ["firing"]
    assert phases(held, [11, 11, 11, 9, 11, 11, 11]) == ["pending"] * 3 + ["ok"] + ["pending"] * 3
    assert phases(held, [11, 11, None, 11]) == ["pending"] * 2 + ["ok", "pending"]


def test_between_its_two_thresholds_it_stays_as_it_is() -> None:
    wide = rule(clear=5, clear_for="20s")
    assert phases(wide, [7, 11, 7, 7, 5, 7, 5, 5]) == ["ok"] + ["firing"] * 6 + ["ok"]
    assert phases(rule(clear_for="20s"), [11, 10, 10]) == ["firing", "firing", "ok"]
    low = rule(comparison="<", threshold=0.5, clear=0.7, clear_for="0s")
    assert phases(low, [0.6, 0.4, 0.6, 0.7, 0.6]) == ["ok", "firing", "firing", "ok", "ok"]


def test_what_can_not_be_known_is_no_trouble_and_ends_it() -> None:
    assert phases(rule(clear=5, clear_for="20s"), [11, None, None]) == ["firing", "firing", "ok"]


@given(st.lists(st.floats(0, 20) | st.none(), max_size=60), st.integers(0, 5), st.integers(0, 5))
def test_it_never_fires_sooner_nor_ends_sooner_than_it_says(
    values: list[float | None], hold: int, calm: int
) -> None:
    of = rule(clear=5, clear_for=f"{calm}s", **{"for": f"{hold}s"})
    state, bad, good = AlertState(), 0, 0
    for number, value in enumerate(values):
        after = step(of, state, value, 1.0, number)
        bad = bad + 1 if value is not None and value > 10 else 0
        good = good + 1 if value is None or value <= 5 else 0
        if state.phase != "firing" and after.phase == "firing":
            assert bad > hold
        if state.phase == "firing" and after.phase != "firing":
            assert good >= max(calm, 1)
        assert after.phase != "pending" or hold > 0
        state = after


def vitals(**changes: Any) -> ProcessStats:
    plain: dict[str, Any] = {
        "at": 0.0, "lags": [], "sampled": 1, "cpu_seconds": 0.0, "cpu_share": 0.5,
        "memory": 100, "open_files": 50, "most_open_files": 100, "machine_cpu_share": 0.2,
        "machine_memory": 8, "machine_memory_free": 6, "disk": 100, "disk_free": 40,
        "pools": {"read": PoolState(8, 4, 2, 1), "bulk": PoolState(4, 4, 4, 3)}, "running": 3,
        "leaving": False, "cached_pages": 7, "cached_bytes": 7_000, "evicted_pages": 0,
        "database_answers": True, "redis_answers": None, "log_reads": True,
        "health": {"primary": "ok"}, "kept_out": {},
        "standbys": {"db2:5432": StandbyState(True, 0.5)},
        "audit": AuditState(50, 100, 0), "keys_age": 90.0,
        "log": ChangeLogState(1_000, 50.0, 1, 7.0),
        "views": {"app.sums": ViewState(70.0, 1.0, 0), "app.months": ViewState(9.0, 0.1, 3)},
        "live": FollowedState(30, 100, 2, 4, 500, 0.0, 3.0),
    }  # fmt: skip
    return ProcessStats(**{**plain, **changes})


def seen() -> AlertInput:
    figures = Figures()
    for dataset, complete, failed in (("clients", 90, 10), ("budgets", 100, 0)):
        key = ("GET", "/v1/feeds/{dataset}", dataset)
        figures.add(("requests", *key, "complete"), complete)
        figures.add(("requests", *key, "broken"), failed)
        for name in ("seconds", "first_byte"):
            figures.sketch((name, *key)).add(0.5 if dataset == "clients" else 0.1, 100)
    # A balancer's probes, which are many, quick, and never fail.
    figures.add(("requests", "GET", "/ready", "", "complete"), 100_000)
    for name in ("seconds", "first_byte"):
        figures.sketch((name, "GET", "/ready", "")).add(0.001, 100_000)
    figures.add(("audit_dropped",), 8)
    figures.add(("cache", "clients", "memory"), 3)
    figures.add(("cache", "clients", "miss"), 1)
    figures.add(("leases", "read", "busy"), 4)
    figures.add(("faults", "timeout"), 6)
    figures.add(("problems", "rate-limited"), 2)
    figures.sketch(("wait", "read")).add(0.2)
    figures.sketch(("wait", "bulk")).add(2.0)
    figures.sketch(("query",)).add(0.3)
    figures.add(("slow", "clients"), 8)
    figures.add(("slow", "budgets"), 2)
    figures.add(("repeats", "clients", "row-by-key", ""), 40)
    figures.sketch(("live_lag",)).add(0.7, 50)
    figures.add(("live_behind",), 10)
    figures.add(("live_ends", "stalled"), 4)
    figures.add(("live_ends", "rotation"), 40)
    figures.add(("resets", "expired"), 6)
    figures.sketch(("lag",)).add(0.04)
    away = vitals(database_answers=False, log_reads=False, memory=300, cpu_share=0.9,
                  health={"primary": "degraded", "redis": "down"}, keys_age=95.0,
                  live=FollowedState(95, 100, 1, 4, 500, 8.0, 60.0))  # fmt: skip
    leaving = vitals(leaving=True, pools={})
    return AlertInput(Span(figures, 120.0), [vitals(), away, leaving], workers=3)


VALUES: list[tuple[str, Selector, float | None]] = [
    ("error_rate", Selector(), 0.05),
    ("error_rate", Selector(dataset="clients"), 0.1),
    ("error_rate", Selector(dataset="budgets"), 0.0),
    ("error_rate", Selector(route="/live"), None),
    ("error_rate", Selector(route="/ready"), 0.0),
    ("p50", Selector(route="/ready"), 0.001),
    ("error_rate", Selector(least=201), None),
    ("requests_per_second", Selector(), 200 / 120),
    ("p99", Selector(dataset="clients"), 0.5),
    ("p50", Selector(dataset="budgets"), 0.1),
    ("p95", Selector(), 0.5),
    ("first_byte_p50", Selector(dataset="budgets"), 0.1),
    ("first_byte_p95", Selector(), 0.5),
    ("first_byte_p99", Selector(route="/live"), None),
    ("broken_per_minute", Selector(), 5.0),
    ("broken_per_minute", Selector(dataset="budgets"), 0.0),
    ("rate_limited_per_minute", Selector(), 1.0),
    ("locked_per_minute", Selector(), 0.0),
    ("query_p95", Selector(), 0.3),
    ("slow_queries_per_minute", Selector(), 5.0),
    ("slow_queries_per_minute", Selector(dataset="clients"), 4.0),
    ("repeated_per_minute", Selector(), 20.0),
    ("repeated_per_minute", Selector(dataset="budgets"), 0.0),
    ("database_away", Selector(), 1 / 3),
    ("database_faults_per_minute", Selector(), 3.0),
    ("pool_wait_p95", Selector(pool="read"), 0.2),
    ("pool_wait_p95", Selector(pool="bulk"), 2.0),
    ("pool_waiting", Selector(), 8.0),
    ("pool_waiting", Selector(pool="read"), 2.0),
    ("pool_busy_share", Selector(), 1.0),
    ("pool_busy_share", Selector(pool="read"), 0.25),
    ("pool_busy_per_minute", Selector(pool="read"), 2.0),
    ("pool_busy_per_minute", Selector(pool="bulk"), 0.0),
    ("cache_hit_ratio", Selector(dataset="clients"), 0.75),
    ("cache_hit_ratio", Selector(dataset="budgets"), None),
    ("redis_away", Selector(), None),
    ("log_reader_away", Selector(), 1 / 3),
    ("live_lag_p99", Selector(), 0.7),
    ("live_failing", Selector(), 8.0),
    ("live_looked", Selector(), 3.0),
    ("live_subscribers", Selector(), 155.0),
    ("live_subscribers_share", Selector(), 0.95),
    ("live_catching_up", Selector(), 5.0),
    ("live_behind_per_minute", Selector(), 5.0),
    ("live_stalled_per_minute", Selector(), 2.0),
    ("resets_per_minute", Selector(), 3.0),
    ("loop_lag_p99", Selector(), 0.04),
    ("workers_missing", Selector(), 1.0),
    ("log_bytes", Selector(), 1_000.0),
    ("log_trim_blocked", Selector(), 7.0),
    ("view_age", Selector(), 70.0),
    ("view_refresh_failures", Selector(), 3.0),
    ("cpu_share", Selector(), 0.9),
    ("memory_bytes", Selector(), 300.0),
    ("open_files_share", Selector(), 0.5),
    ("machine_cpu_share", Selector(), 0.2),
    ("machine_memory_share", Selector(), 0.25),
    ("disk_share", Selector(), 0.6),
    ("health", Selector(), 2.0),
    ("health", Selector(check="primary"), 1.0),
    ("health", Selector(check="clock"), None),
    ("audit_waiting_share", Selector(), 0.5),
    ("audit_dropped_per_minute", Selector(), 4.0),
    ("keys_age", Selector(), 95.0),
]


@pytest.mark.parametrize(("figure", "selector", "value"), VALUES)
def test_each_figure(figure: str, selector: Selector, value: float | None) -> None:
    found = FIGURES[figure].read(seen(), selector)
    assert found == (None if value is None else pytest.approx(value, rel=0.01))


def test_no_figure_is_left_out_above_or_fails_where_nothing_is_known() -> None:
    assert {name for name, _, _ in VALUES} == set(FIGURES)
    nothing = AlertInput(Span(Figures(), 0.0), [], workers=0)
    for name, figure in FIGURES.items():
        assert figure.read(nothing, Selector()) in (None, 0.0), name
        assert figure.what


def test_each_of_the_projects_own_alerts_is_in_the_runbook() -> None:
    page = (REPOSITORY / "docs" / "runbook.md").read_text()
    headings = {line for line in page.splitlines() if line.startswith("## ")}
    names = tomllib.loads((REPOSITORY / "config" / "alerts.toml").read_text())
    assert {h for h in headings if h.startswith("## Alert: ")} == {f"## Alert: {n}" for n in names}
    for link in re.findall(r"\]\(#([a-z-]+)\)", page):
        assert any(h.removeprefix("## ").lower().replace(": ", "-") == link for h in headings), link
