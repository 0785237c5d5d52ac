"""The monitor's screen, made anew from each glance, for a terminal of any size from 80 by 24."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from feedsvc.commands.monitor.history import RateHistory, name_of, spark
from feedsvc.commands.monitor.source import Glance
from feedsvc.core.json_object import Json
from feedsvc.core.quantities import size, span

_WIDE: Final = 150  # columns from which on there are two side by side
_LOW: Final = 24  # lines up to which nothing is shown that changes from hour to hour
_FEWEST_ENDPOINTS: Final = 3
_AN_ENDPOINTS_FIGURES: Final = 66  # columns beside its line
_LONG_BLOCKED: Final = 60.0  # seconds
_OF_TROUBLE: Final = 5  # lines that the live feeds and their like have before faults do
_NEARLY_FULL: Final = 0.9  # of the subscribers that there may be
_COLOURS: Final = {"ok": "green", "degraded": "yellow", "down": "red"}
_SEVERITIES: Final = {"critical": "bold red", "warning": "yellow", "info": "cyan"}


@dataclass(frozen=True, slots=True)
class Screen:
    """A terminal: its size, and whether it has nothing but ASCII."""

    url: str
    width: int
    height: int
    plain: bool

    def draw(self, glance: Glance, history: RateHistory) -> RenderableType:
        """All of it, no higher and no wider than the terminal."""
        title, traffic = self._title(glance), self._traffic(glance, history)
        trouble = self._trouble(glance)
        pools, cache = self._pools(glance), self._cache(glance)
        beside = _lines(title, traffic, trouble)
        if self.width >= _WIDE:
            left = self._endpoints(glance, history, self.width // 2, self.height - beside)
            side = Table.grid(expand=True, padding=(0, 2, 0, 0))
            side.add_column(ratio=1)
            side.add_column(ratio=1)
            side.add_row(left, Group(pools, cache))
            return Group(title, traffic, trouble, side)
        room = self.height - beside - _rows(pools) - _lines(cache) - 1
        endpoints = self._endpoints(glance, history, self.width, room)
        return Group(title, traffic, trouble, endpoints, "", pools, cache)

    def _title(self, glance: Glance) -> Text:
        health, now = glance.answers.get("health"), _now(glance)
        state = health["state"] if health else "down"
        title = Text(no_wrap=True, overflow="ellipsis")
        title.append(f" {state.upper()} ", f"bold reverse {_COLOURS[state]}")
        title.append(f" {self.url}", "bold")
        if now:
            more = f" (+{now['leaving']})" if now.get("leaving") else ""
            title.append(f"  {now['workers']}{more} {_noun('worker', now['workers'])}")
        title.append(f"  {time.strftime('%H:%M:%S', time.localtime(glance.at))}", "dim")
        return title

    def _traffic(self, glance: Glance, history: RateHistory) -> RenderableType:
        now = _now(glance)
        if not now:
            faults = Text(no_wrap=True, overflow="ellipsis")
            for fault in _said_once(glance.faults):
                faults.append(f"{fault}\n", "red")
            return faults
        pools = glance.answers.get("pools", {}).get("pools", ())
        reading = sum(pool["in_use_by_exports"] for pool in pools)
        rate = history.rates[-1] if history.rates else now["rate"]
        # Those that say most come first, for a narrow screen has no room for the last.
        figures = (
            (_number(rate), "req/s"),
            (_share(now["error_rate"]), "errors"),
            (_ms(now["first_byte"]["p95_ms"]), "ms p95"),
            (str(now["running"]), f"running ({reading} read)"),
            (_share(now["cpu_share"]), "CPU"),
            (size(now["memory_bytes"]), ""),
            (_ms(now["loop_lag_ms"]), "ms late"),
        )
        line = Text(no_wrap=True, overflow="ellipsis")
        for value, name in figures:
            if line.cell_len + len(f"{value} {name}") > self.width:
                break
            line.append(value, "bold").append(f" {name}  " if name else "  ", "dim")
        half = max(10, (self.width - 20) // 2)
        lines = Table.grid(padding=(0, 1, 0, 0))
        lines.add_row(
            Text("req/s", "dim"),
            Text(spark(history.rates, half, plain=self.plain), "cyan"),
            Text("p95", "dim"),
            Text(spark(history.first_bytes, half, plain=self.plain), "magenta"),
        )
        return Group(line, lines)

    def _trouble(self, glance: Glance) -> RenderableType:
        """Faults: firing alerts, then components, as many as there is room for."""
        found = [*_alerts(glance), *_components(glance)]
        most = max(2, (self.height - _OF_TROUBLE) // 5)
        text = Text(no_wrap=True, overflow="ellipsis")
        for line, style in found[:most]:
            text.append(f"{line}\n", style)
        if len(found) > most:
            text.append(f"and {len(found) - most} more\n", "dim")
        return Text(no_wrap=True, overflow="ellipsis").append(text) if found else Text("")

    def _endpoints(
        self, glance: Glance, history: RateHistory, width: int, room: int
    ) -> RenderableType:
        table = _table()
        table.add_column("last minutes", no_wrap=True, ratio=1, overflow="ellipsis")
        for name in ("req/s", "errors", "p50", "p95", "p99 ms"):
            table.add_column(name, justify="right", no_wrap=True)
        drawn = max(8, width - _AN_ENDPOINTS_FIGURES)
        table.add_column("p95, over time", no_wrap=True, width=drawn)
        # Feeds first: what an operator asks for is hardly ever the matter.
        endpoints = sorted(_now(glance).get("endpoints", []), key=lambda each: not each["dataset"])
        for endpoint in endpoints[: max(_FEWEST_ENDPOINTS, room - 2)]:
            name = name_of(endpoint)
            errors = Text(_share(endpoint["error_rate"]), "red" if endpoint["errors"] else "")
            table.add_row(
                name,
                _number(endpoint["rate"]),
                errors,
                _ms(endpoint["p50_ms"]),
                _ms(endpoint["p95_ms"]),
                _ms(endpoint["p99_ms"]),
                Text(spark(history.p95s(name), drawn, plain=self.plain), "magenta"),
            )
        if not endpoints:
            table.add_row(Text("no requests", "dim"), *[""] * 6)
        return table

    def _pools(self, glance: Glance) -> RenderableType:
        table = _table()
        table.add_column("pool", no_wrap=True, ratio=1)
        table.add_column("in use", no_wrap=True)
        for name in ("", "waiting", "wait p95 ms", "refused", "would do"):
            table.add_column(name, justify="right", no_wrap=True)
        for pool in glance.answers.get("pools", {}).get("pools", ()):
            limit = pool["size"] * pool["workers"]
            refused = sum(pool["refused"].values())
            table.add_row(
                pool["name"],
                self._bar(pool["in_use"], limit),
                f"{pool['in_use']}/{limit}",
                Text(str(pool["waiting"]), "yellow" if pool["waiting"] else ""),
                _ms(pool["waits"]["p95_ms"]),
                Text(str(refused), "red" if refused else ""),
                _suggested(pool),
            )
        for replica in glance.answers.get("pools", {}).get("replicas", ()):
            lag = "" if replica["lag_ms"] is None else f"{_ms(replica['lag_ms'])} ms behind"
            state = Text(replica["state"], "green" if replica["state"] == "serves" else "yellow")
            table.add_row(replica["name"], state, "", "", lag, "", "")
        return table

    def _cache(self, glance: Glance) -> RenderableType:
        text = Text(no_wrap=True, overflow="ellipsis")
        if "cache" in glance.answers:
            _add_cache(text, glance, glance.answers["cache"])
        _add_log(text, glance)
        _add_live(text, glance)
        if self.height > _LOW:
            _add_queries(text, glance)
            _add_views(text, glance)
        if _now(glance):  # else they stand above, where the figures would
            for line in _said_once(glance.faults):
                text.append(f"\n{line}", "yellow")
        return text

    def _bar(self, used: int, limit: int) -> Text:
        width = 10
        full = min(width, round(width * used / limit)) if limit else 0
        filled, empty = ("#", ".") if self.plain else ("█", "░")
        style = "red" if used >= limit else "yellow" if used > limit / 2 else "green"
        return Text(filled * full, style).append(empty * (width - full), "dim")


def _add_cache(text: Text, glance: Glance, cache: Json) -> None:
    lately, now = glance.answers.get("metrics", {}).get("cache", {}), _now(glance).get("cache", {})
    memory, redis = cache["memory"], cache["redis"]
    text.append("cache ", "dim").append(_share(lately.get("hit_ratio")), "bold")
    text.append(" hits in 1 h  ", "dim")
    text.append(f"{now.get('pages', memory['pages'])} pages  ")
    text.append(size(now.get("bytes", memory["bytes"])))
    text.append("  change log ", "dim")
    text.append(*(("read", "green") if cache["log_read"] else ("unread", "yellow")))
    well = redis in ("answers", "none")
    text.append("  redis ", "dim").append(redis, "green" if well else "yellow")


def _add_log(text: Text, glance: Glance) -> None:
    """The change log's size, its age, and what keeps it from being trimmed."""
    checks = glance.answers.get("health", {}).get("checks", ())
    log = next((each["figures"] for each in checks if each["name"] == "changes"), None)
    if not log:
        return
    text.append("\n" if text else "").append("log ", "dim")
    text.append("locked" if log["bytes"] is None else size(log["bytes"]))
    text.append(f"  {span(log['oldest_s'])}", "bold").append(" back  ", "dim")
    text.append(f"{log['unsealed']} unsealed", "yellow" if log["unsealed"] > 1 else "")
    if log["blocked_s"] >= _LONG_BLOCKED:
        text.append("  trim blocked ", "dim").append(span(log["blocked_s"]), "yellow")


def _add_live(text: Text, glance: Glance) -> None:
    """Live feeds: how many follow, how late their events are, and what could not be continued."""
    now = _now(glance).get("live")
    if not now:
        return
    lately = glance.answers["metrics"].get("live", {})
    text.append("\n" if text else "").append("live ", "dim")
    subscribers, groups = now["subscribers"], now["cohorts"]
    text.append(f"{subscribers:,}", _fullness(now))
    text.append(f" {_noun('subscriber', subscribers)}  ", "dim")
    text.append(f"{groups:,}").append(f" {_noun('group', groups)}  p99 ", "dim")
    text.append(_ms(now["lag_p99_ms"]), "bold").append(" ms  ", "dim")
    resets = sum(lately.get("resets", {}).values())
    text.append(f"{resets} {_noun('reset', resets)}", "yellow" if resets else "")
    text.append(" in 1 h", "dim")
    if now["catching_up"]:
        text.append(f"  {now['catching_up']:,} behind", "yellow")
    if now["failing_s"]:
        text.append("  unread ", "dim").append(span(now["failing_s"]), "red")


def _fullness(now: Json) -> str:
    return "yellow" if now["subscribers"] > _NEARLY_FULL * now["most"] else "bold"


def _add_queries(text: Text, glance: Glance) -> None:
    """Slow queries, and requests that one could replace, of the last hour."""
    found = glance.answers.get("metrics", {}).get("queries", {})
    if not any(found.values()):
        return
    text.append("\n" if text else "").append("queries ", "dim")
    text.append(f"{found['slow']:,} slow", "yellow" if found["slow"] else "")
    text.append(f"  {found['repeated']:,} repeated", "yellow" if found["repeated"] else "")
    text.append(f" ({span(found['lost_ms'] / 1e3)} lost)" if found["repeated"] else "", "dim")
    text.append(" in 1 h", "dim")


def _add_views(text: Text, glance: Glance) -> None:
    """The age of the oldest materialized view, its name, and what upkeep finds."""
    checks = {each["name"]: each for each in glance.answers.get("health", {}).get("checks", ())}
    views = checks.get("refreshes", {}).get("figures", {}).get("views", {})
    ages = {name: view["age_s"] for name, view in views.items() if view["age_s"] is not None}
    found = checks.get("upkeep", {}).get("figures", {}).get("found", {})
    if not ages and not found:
        return
    text.append("\n" if text else "")
    if ages:
        oldest = max(ages, key=ages.__getitem__)
        failing = sum(view["failures"] > 1 for view in views.values())
        text.append("views ", "dim").append(span(ages[oldest]), "bold").append(f" old ({oldest})  ")
        text.append(f"{failing} failing  " if failing else "", "yellow")
    if found:
        listed = ", ".join(f"{count} {kind}" for kind, count in found.items())
        text.append("upkeep ", "dim").append(listed)


def _alerts(glance: Glance) -> Iterable[tuple[str, str]]:
    for alert in glance.answers.get("alerts", {}).get("alerts", ()):
        if alert["state"] == "ok":
            continue
        silenced = "silenced" if alert["silenced_until"] else alert["state"]
        value = "" if alert["value"] is None else f" {alert['value']:.3g}"
        bound = f"{alert['comparison']} {alert['threshold']:g}"
        what = f"{silenced.upper()} {alert['name']}:{value} {bound}"
        style = "dim" if alert["silenced_until"] or alert["state"] == "pending" else ""
        yield f"{what}. {alert['todo']}", style or _SEVERITIES[alert["severity"]]


def _components(glance: Glance) -> Iterable[tuple[str, str]]:
    for check in glance.answers.get("health", {}).get("checks", ()):
        if check["state"] != "ok":
            yield f"{check['name']} is {check['state']}: {check['what']}", _COLOURS[check["state"]]


def _said_once(faults: Mapping[str, str]) -> Iterable[str]:
    """One line for what has the same reason."""
    for why in dict.fromkeys(faults.values()):
        yield f"{', '.join(name for name, other in faults.items() if other == why)}: {why}"


def _now(glance: Glance) -> Json:
    now: Json = glance.answers.get("metrics", {}).get("now", {})
    return now


def _table() -> Table:
    return Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        expand=True,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="dim",
    )


def _suggested(pool: Json) -> Text:
    size = pool["suggestion"]["size"]
    if size is None or size == pool["size"]:
        return Text("-" if size is None else str(size), "dim")
    return Text(str(size), "yellow" if size > pool["size"] else "cyan")


def _rows(table: Any) -> int:
    """A table's lines, with its head and the line under it."""
    return int(table.row_count) + 2


def _lines(*parts: RenderableType) -> int:
    """The number of lines that these take, each shorter than the screen is wide."""
    total = 0
    for part in parts:
        if isinstance(part, Group):
            total += _lines(*part.renderables)
        elif isinstance(part, Text):
            total += part.plain.count("\n") + 1
        else:
            total += 1
    return total


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 9_999.5:
        return f"{value / 1e3:.0f} s"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def _noun(name: str, count: int) -> str:
    return name if count == 1 else f"{name}s"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
