"""Reports of merged figures as plain values: times are milliseconds, shares and errors 0 to 1."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from feedsvc.core.json_object import Json
from feedsvc.core.process_stats import ProcessStats
from feedsvc.operations.performance.figures import Figures
from feedsvc.operations.performance.sketch import Sketch

FAILURES: Final = ("failed", "broken")
_OUTCOMES: Final = ("complete", "refused", *FAILURES, "cancelled")
_RANKS: Final = (0.5, 0.95, 0.99)
_SLOWEST: Final = 5
_FEWEST: Final = 20  # requests from which on an endpoint's percentile is worth a place among them

COLUMNS: Final = (
    "method", "route", "dataset", "count", "rate", *_OUTCOMES, "errors", "error_rate",
    "mean_ms", "p50_ms", "p95_ms", "p99_ms",
    "first_byte_p50_ms", "first_byte_p95_ms", "first_byte_p99_ms", "rows", "bytes",
)  # fmt: skip
"""An endpoint's columns as CSV."""


class Span(NamedTuple):
    """Figures, and the seconds that they cover."""

    figures: Figures
    seconds: float


def endpoints(span: Span, before: Span) -> list[Json]:
    """Each endpoint, the most asked first, and how it differs from what was before."""
    found = {key[1:4] for key in span.figures.counts if key[0] == "requests"}
    listed = [_endpoint(span, before, key) for key in found]
    return sorted(listed, key=lambda e: (-e["count"], e["route"], e["method"], e["dataset"] or ""))


def slowest(listed: Sequence[Json]) -> list[Json]:
    """Those with the highest p95, of those that were asked often enough for it to mean anything."""
    often = [e for e in listed if e["count"] >= _FEWEST]
    ranked = sorted(often, key=lambda e: -e["p95_ms"])[:_SLOWEST]
    return [{name: e[name] for name in ("method", "route", "dataset", "p95_ms")} for e in ranked]


def totals(span: Span, before: Span) -> Json:
    """The totals of all endpoints."""
    return _asked(span, before, (None, None, None))


def problems(figures: Figures) -> dict[str, int]:
    """Requests that a problem ended, by its name."""
    return _by_last(figures, "problems")


def database(figures: Figures) -> Json:
    """PostgreSQL's part of requests."""
    return {
        "query": _times(figures.merged("query")),
        "faults": _by_last(figures, "faults"),
        "away_s": round(figures.total("away", "database"), 1),
    }


def statements(figures: Figures) -> list[Json]:
    """The service's own statements by name, those that took the most time first."""
    found = [
        {
            "name": key[1],
            "calls": sketch.count,
            "total_ms": round(sketch.total * 1e3, 3),
            **{name: ms for name, ms in _times(sketch).items() if name in {"mean_ms", "p95_ms"}},
            "rows": round(figures.counts.get(("statement_rows", key[1]), 0)),
        }
        for key, sketch in figures.sketches.items()
        if key[0] == "statement"
    ]
    return sorted(found, key=lambda each: (-each["total_ms"], each["name"]))


def repeated(figures: Figures) -> list[Json]:
    """Requests that one could replace, by dataset, pattern and column, the most lost time first."""
    found = [
        {
            "dataset": key[1],
            "pattern": key[2],
            "column": key[3] or None,
            "count": round(count),
            "runs": round(figures.counts.get(("repeat_runs", *key[1:]), 0)),
            "lost_ms": round(figures.counts.get(("repeat_seconds", *key[1:]), 0) * 1e3, 3),
        }
        for key, count in figures.counts.items()
        if key[0] == "repeats"
    ]
    return sorted(found, key=lambda each: (-each["lost_ms"], each["dataset"], each["pattern"]))


def queries(figures: Figures) -> Json:
    """Queries beyond `queries.slow`, and requests that one could replace."""
    return {
        "slow": round(figures.total("slow")),
        "repeated": round(figures.total("repeats")),
        "lost_ms": round(figures.total("repeat_seconds") * 1e3, 3),
    }


def cache(figures: Figures) -> Json:
    """The cache's hits and misses, in all and by dataset."""
    names = sorted({key[1] for key in figures.counts if key[0] == "cache"})
    return {
        **_cached(figures, None),
        "peak_bytes": round(figures.highest("cached_bytes") or 0),
        **{
            name: {
                "losses": round(figures.total("losses", name)),
                "away_s": round(figures.total("away", name), 1),
            }
            for name in ("log_reader", "redis")
        },
        "datasets": {name: _cached(figures, name) for name in names},
    }


def live(figures: Figures) -> Json:
    """Live feeds: how late their events were, and why answers ended; a peak is of one worker."""
    return {
        "lag": _times(figures.merged("live_lag")),
        "peak_subscribers": round(figures.highest("subscribers") or 0),
        "behind": round(figures.total("live_behind")),
        "reads": round(figures.total("live_reads")),
        "ends": _by_last(figures, "live_ends"),
        "resets": _by_last(figures, "resets"),
    }


def pools(figures: Figures) -> Json:
    """Waiting for connections, by pool; peaks are of the one worker where it was highest."""
    names = sorted({key[1] for key in figures.peaks if key[0] == "busy"})
    return {
        name: {
            "wait": _times(figures.merged("wait", name)),
            "leases": _by_last(figures, "leases", name),
            "peak_busy": round(figures.highest("busy", name) or 0),
            "peak_waiting": round(figures.highest("waiting", name) or 0),
        }
        for name in names
    }


def system(figures: Figures) -> Json:
    """Processes and machine. `workers` is how many there were on average while any ran."""
    alive = figures.total("seconds")
    return {
        "worker_seconds": round(alive, 1),
        "cpu_share": _rounded(figures.total("cpu") / alive) if alive else None,
        "peak_cpu_share": _rounded(figures.highest("cpu_share")),
        "peak_memory_bytes": _whole(figures.highest("memory")),
        "peak_open_files": _whole(figures.highest("open_files")),
        "peak_open_files_share": _rounded(figures.highest("open_files_share")),
        "loop_lag": _times(figures.merged("lag")),
        "machine": {
            "peak_cpu_share": _rounded(figures.highest("machine_cpu")),
            "peak_memory_share": _rounded(figures.highest("machine_memory")),
            "peak_disk_share": _rounded(figures.highest("disk")),
        },
    }


def csv_rows(listed: Sequence[Json]) -> Iterator[list[Any]]:
    """Endpoints as records with `COLUMNS`."""
    for endpoint in listed:
        flat = {**endpoint, **endpoint["outcomes"]}
        flat |= {f"first_byte_{name}": value for name, value in endpoint["first_byte"].items()}
        yield [flat[column] for column in COLUMNS]


def now(present: Sequence[ProcessStats], recent: Span) -> Json:
    """The state of all workers now, and requests of the last minute or two."""
    lags = [lag for each in present for lag in each.lags]
    return {
        "workers": sum(not each.leaving for each in present),
        "leaving": sum(each.leaving for each in present),
        **_asked(recent, Span(Figures(), 0), (None, None, None)),
        "running": sum(each.running for each in present),
        "cpu_share": _rounded(sum(each.cpu_share for each in present)),
        "memory_bytes": sum(each.memory for each in present),
        "open_files": max((each.open_files or 0 for each in present), default=None),
        "most_open_files": min((e.most_open_files for e in present if e.most_open_files),
                               default=None),
        "loop_lag_ms": round(max(lags, default=0.0) * 1e3, 3),
        "stages_sampled": max((each.sampled for each in present), default=1),
        "cache": {
            "pages": sum(each.cached_pages for each in present),
            "bytes": sum(each.cached_bytes for each in present),
        },
        "live": _live_now(present, recent.figures),
        "endpoints": endpoints(recent, Span(Figures(), 0)),
        "pools": _pools_now(present),
        "database_answers": all(each.database_answers for each in present),
        "redis_answers": _all_of([each.redis_answers for each in present]),
        "log_reads": _all_of([each.log_reads for each in present]),
        "machine": _machine(present),
    }  # fmt: skip


def _pools_now(present: Sequence[ProcessStats]) -> Json:
    names = {name for each in present for name in each.pools}
    states = {name: [each.pools[name] for each in present if name in each.pools] for name in names}
    return {
        name: {
            "limit": sum(state.limit for state in states[name]),
            "open": sum(state.open for state in states[name]),
            "busy": sum(state.busy for state in states[name]),
            "waiting": sum(state.waiting for state in states[name]),
        }
        for name in sorted(names)
    }


def _live_now(present: Sequence[ProcessStats], recent: Figures) -> Json:
    states = [each.live for each in present]
    looked = [state.looked for state in states if state.looked is not None]
    return {
        **{
            name: sum(getattr(state, name) for state in states)
            for name in ("subscribers", "most", "catching_up", "cohorts", "kept_bytes")
        },
        "failing_s": round(max((state.failing for state in states), default=0.0), 1),
        "looked_s": round(max(looked), 1) if looked else None,
        "lag_p99_ms": _times(recent.merged("live_lag"))["p99_ms"],
    }


def _machine(present: Sequence[ProcessStats]) -> Json | None:
    if not present:
        return None
    latest = max(present, key=lambda each: each.at)
    return {
        "cpu_share": _rounded(latest.machine_cpu_share),
        "memory_bytes": latest.machine_memory,
        "memory_free_bytes": latest.machine_memory_free,
        "disk_bytes": latest.disk,
        "disk_free_bytes": latest.disk_free,
    }


def _all_of(answers: Sequence[bool | None]) -> bool | None:
    """Return whether it holds for all workers that it concerns; None where it concerns none."""
    concerned = [answer for answer in answers if answer is not None]
    return all(concerned) if concerned else None


def _endpoint(span: Span, before: Span, key: tuple[str, ...]) -> Json:
    method, route, dataset = key
    named: Json = {"method": method, "route": route, "dataset": dataset or None}
    return named | _asked(span, before, key)


def _asked(span: Span, before: Span, key: tuple[str | None, ...]) -> Json:
    figures, seconds = span
    outcomes = {o: round(figures.total("requests", *key, o)) for o in _OUTCOMES}
    count, errors = sum(outcomes.values()), sum(outcomes[o] for o in FAILURES)
    first_byte = _times(figures.merged("first_byte", *key))
    return {
        "count": count,
        "rate": _rounded(count / seconds) if seconds else None,
        "outcomes": outcomes,
        "errors": errors,
        "error_rate": _rounded(errors / count) if count else 0.0,
        **_times(figures.merged("seconds", *key)),
        "first_byte": {name: first_byte[name] for name in ("p50_ms", "p95_ms", "p99_ms")},
        "rows": round(figures.total("rows", *key)),
        "bytes": round(figures.total("bytes", *key)),
        "trend": _trend(span, before, key),
    }


def _trend(span: Span, before: Span, key: tuple[str | None, ...]) -> Json | None:
    """The relative growth of each figure, and the absolute one of the error rate.

    None where there was nothing before.
    """
    both = (span, before)
    if not before.seconds or not before.figures.total("requests", *key):
        return None
    rate, was = (each.figures.total("requests", *key) / each.seconds for each in both)
    p95, p95_was = (_p95(each.figures.merged("seconds", *key)) for each in both)
    failed, failed_was = (_error_rate(each.figures, key) for each in both)
    return {
        "rate": _rounded(rate / was - 1),
        "p95": _rounded(p95 / p95_was - 1) if p95 and p95_was else None,
        "error_rate": _rounded(failed - failed_was),
    }


def _error_rate(figures: Figures, key: tuple[str | None, ...]) -> float:
    count = figures.total("requests", *key)
    return sum(figures.total("requests", *key, o) for o in FAILURES) / count if count else 0.0


def _p95(sketch: Sketch) -> float | None:
    found = sketch.quantiles((0.95,))
    return found[0] if found else None


def _times(sketch: Sketch) -> Json:
    found = sketch.quantiles(_RANKS)
    mean = sketch.total / sketch.count if found else None
    p50, p95, p99 = found or (None, None, None)
    times = {"mean_ms": mean, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}
    return {name: None if s is None else round(s * 1e3, 3) for name, s in times.items()}


def _cached(figures: Figures, dataset: str | None) -> Json:
    seen = {
        outcome: round(figures.total("cache", dataset, outcome))
        for outcome in ("memory", "redis", "stale", "miss", "bypass")
    }
    shown = seen["memory"] + seen["redis"] + seen["stale"]
    looked = shown + seen["miss"]
    return {
        "hits": {"memory": seen["memory"], "redis": seen["redis"]},
        "stale": seen["stale"],
        "misses": seen["miss"],
        "bypassed": seen["bypass"],
        "hit_ratio": _rounded(shown / looked) if looked else None,
        "load": _times(figures.merged("load", dataset)),
    }


def _by_last(figures: Figures, *beginning: str) -> dict[str, int]:
    """Sums by the last part of their key."""
    found = {
        key[-1]: round(number)
        for key, number in figures.counts.items()
        if key[: len(beginning)] == beginning
    }
    return dict(sorted(found.items()))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
