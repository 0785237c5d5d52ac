"""The files for Prometheus and Grafana name nothing that does not exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feedsvc.operations.alerts.figures import FIGURES
from feedsvc.operations.metrics.declarations import METRICS
from tests.support.service import REPOSITORY

CONFIG = REPOSITORY / "config"
SAMPLES = {sample: metric for metric in METRICS for sample in metric.samples()}

# A selector, such as feedsvc_requests_total{outcome="failed", job=~"$job"}.
SELECTOR = re.compile(r"\b(feedsvc_\w+)(\{[^}]*\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\bby \(([^)]*)\)")
FROM_PROMETHEUS = {"job", "instance", "le"}


def expressions() -> Iterator[tuple[str, str]]:
    """The place of each expression, and itself."""
    board: Any = json.loads((CONFIG / "grafana-dashboard.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield f"panel {panel['title']}", target["expr"]
    rules = (CONFIG / "prometheus-rules.yml").read_text()
    for rule in re.split(r"^ +- alert: ", rules, flags=re.MULTILINE)[1:]:
        name, _, rest = rule.partition("\n")
        (expression,) = re.findall(r"expr:(.*?)\n +(?:for|labels):", rest, flags=re.DOTALL)
        yield f"rule {name}", expression


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_metric_and_label_is_one_that_there_is(where: str, expression: str) -> None:
    known = set(FROM_PROMETHEUS)
    found = list(SELECTOR.finditer(expression))
    for match in found:
        metric = SAMPLES.get(match[1])
        assert metric is not None, f"{where}: there is no {match[1]}"
        known.update(metric.labels)
        for label, _, value in MATCHER.findall(match[2] or ""):
            assert label in {*metric.labels, *FROM_PROMETHEUS}, f"{where}: {label}"
            assert value == "$job" or label != "outcome" or known_outcomes(metric.name, value)
    assert found or "up{" in expression, where
    for grouping in GROUPING.findall(expression):
        assert set(map(str.strip, grouping.split(","))) <= known, f"{where}: by ({grouping})"


def known_outcomes(metric: str, value: str) -> bool:
    from feedsvc.operations.metrics import declarations

    outcomes = {
        "feedsvc_requests": declarations.OUTCOMES,
        "feedsvc_cache_lookups": declarations.LOOKUPS,
        "feedsvc_pool_leases": declarations.LEASES,
        "feedsvc_webhook_messages": declarations.DELIVERIES,
    }[metric]
    return set(value.split("|")) <= set(outcomes)


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {match[1] for where, expression in expressions() if where.startswith("panel")
             for match in SELECTOR.finditer(expression)}  # fmt: skip
    missing = {metric.name for metric in METRICS if shown.isdisjoint(metric.samples())}
    assert not missing


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here to check them with")
@pytest.mark.parametrize("check", [["rules", "prometheus-rules.yml"], ["config", "prometheus.yml"]])
def test_promtool_finds_the_files_right(check: list[str]) -> None:
    promtool(*check)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here to check them with")
def test_promtool_understands_what_the_dashboard_asks(tmp_path: Path) -> None:
    """As rules, for promtool reads no dashboards."""
    asked = [e.replace("$__rate_interval", "5m") for where, e in expressions() if "panel" in where]
    rules = [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(asked)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("rules", str(file))


def promtool(*check: str) -> None:
    done = subprocess.run(
        ["promtool", "check", *check],
        cwd=CONFIG,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_operators_page_has_every_metric_and_every_figure() -> None:
    page = (REPOSITORY / "docs" / "observing.md").read_text()
    short = re.sub(r"`_(\w+)`", lambda match: f"`feedsvc_pool_{match[1]}`", page)
    for metric in METRICS:
        name = f"{metric.name}_total" if metric.kind == "counter" else metric.name
        assert f"`{name}`" in short, name
    for name, figure in FIGURES.items():
        row = f"| `{name}` | {', '.join(sorted(figure.selectors))} | {figure.what} |"
        assert row in page, row


FAILING = r"""
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'feedsvc_requests_total{{job="f", route="/ready", outcome="complete"}}'
        values: '0+60000x20'
      - series: 'feedsvc_requests_total{{job="f", route="/v1/feeds", outcome="complete"}}'
        values: '0+90x20'
      - series: 'feedsvc_requests_total{{job="f", route="/v1/feeds", outcome="failed"}}'
        values: '0+10x20'
      - series: 'feedsvc_queries_slow_total{{job="f", dataset="clients"}}'
        values: '0x4 0+12x20'
      - series: 'feedsvc_queries_slow_total{{job="f", dataset="vendors"}}'
        values: '0+8x25'
      - series: 'feedsvc_repeated_requests_total{{job="f", dataset="a", pattern="row-by-key"}}'
        values: '0+90x25'
      - series: 'feedsvc_repeated_requests_total{{job="f", dataset="a", pattern="small-pages"}}'
        values: '0+50x25'
      - series: 'feedsvc_health_state{{job="f", check="redis"}}'
        values: '0x5 2x20'
      - series: 'feedsvc_dataset_kept_out{{job="f", dataset="vendors", reason="triggers"}}'
        values: '0x5 1x20'
      - series: 'feedsvc_dataset_kept_out{{job="f", dataset="rates", reason="unsuitable"}}'
        values: '1x25'
      - series: 'feedsvc_replica_up{{job="f", replica="db2:5432"}}'
        values: '1x5 0x20'
      - series: 'feedsvc_audit_dropped_total{{job="f"}}'
        values: '0x10 5x20'
      - series: 'feedsvc_jwks_age_seconds{{job="f"}}'
        values: '600x4 4000x20'
      - series: 'feedsvc_changes_trim_blocked_seconds{{job="f"}}'
        values: '0x4 4000x20'
    promql_expr_test:
      - expr: sum by (alertname) (ALERTS{{alertstate="firing"}})
        eval_time: 4m
        exp_samples: []
      - expr: sum by (alertname) (ALERTS{{alertstate="firing"}})
        eval_time: 18m
        exp_samples:
{fire}
"""


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here to check them with")
def test_prometheus_fires_for_what_health_knows_and_for_feeds_among_probes(tmp_path: Path) -> None:
    """One feed in ten fails, among six hundred times as many probes that don't."""
    named = (
        "Failing",
        "Unhealthy",
        "TriggersChanged",
        "SlowQueries",
        "RepeatedRequests",
        "StandbyLost",
        "AuditLost",
        "KeysOld",
        "LogTrimBlocked",
    )
    fire = "\n".join(
        f"          - {{labels: '{{alertname=\"Feedsvc{name}\"}}', value: 1}}" for name in named
    )
    file = tmp_path / "test.yml"
    file.write_text(FAILING.format(rules=CONFIG / "prometheus-rules.yml", fire=fire))
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
