"""Pools as an operator sees them: one worker's, or those of all workers as one."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from feedsvc.backends.postgres.demand import Suggestion, suggest
from feedsvc.backends.postgres.window import percentiles

_WHYS: Final = ("full", "own", "vain", "late")


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """Figures of one worker's pool. Counts are by bucket of `Window`, by reason, or
    by how many connections were wanted at once (then seconds), as texts.
    """

    name: str
    size: int
    reserve: int
    most_waiting: int
    timeouts: Mapping[str, float]
    open: int
    in_use: int
    in_use_by_exports: int
    waiting: int
    waits: Mapping[str, float]
    small: Mapping[str, float]
    large: Mapping[str, float]
    refused: Mapping[str, float]
    demand: Mapping[str, float]

    def plain(self) -> dict[str, Any]:
        """As a JSON object, of which `Seen(**plain)` makes the same again."""
        return asdict(self)


def texts(counts: Mapping[Any, float]) -> dict[str, float]:
    """The counts with texts for keys, as JSON has them."""
    return {str(key): amount for key, amount in counts.items()}


def report(seen: Sequence[PoolFigures]) -> list[dict[str, Any]]:
    """The pools of the same name as one. Times are milliseconds where they say so, else seconds.

    Sizes, timeouts and the suggestion are each worker's, for so they stand in the settings.
    """
    names = dict.fromkeys(pool.name for pool in seen)
    return [_one([pool for pool in seen if pool.name == name]) for name in names]


def _one(pools: Sequence[PoolFigures]) -> dict[str, Any]:
    first = pools[0]
    refused = _sum(pool.refused for pool in pools)
    suggestion = _largest([_suggestion(pool) for pool in pools])
    return {
        "name": first.name,
        "workers": len(pools),
        "size": first.size,
        "reserve": first.reserve,
        "most_waiting": first.most_waiting,
        "timeouts": first.timeouts,
        "open": sum(pool.open for pool in pools),
        "in_use": sum(pool.in_use for pool in pools),
        "in_use_by_exports": sum(pool.in_use_by_exports for pool in pools),
        "waiting": sum(pool.waiting for pool in pools),
        "waits": percentiles(_sum(pool.waits for pool in pools)),
        "leases": {
            "small": percentiles(_sum(pool.small for pool in pools)),
            "large": percentiles(_sum(pool.large for pool in pools)),
        },
        "refused": {why: round(refused.get(why, 0)) for why in _WHYS},
        "suggestion": {"size": suggestion.size, "why": suggestion.why},
    }


def _suggestion(pool: PoolFigures) -> Suggestion:
    slow = percentiles(pool.waits)["p99_ms"] or 0.0
    demand = {int(level): seconds for level, seconds in pool.demand.items()}
    return suggest(pool.size, demand, round(sum(pool.refused.values())), slow / 1e3)


def _largest(suggestions: Sequence[Suggestion]) -> Suggestion:
    """The size that would have sufficed for the worker that needs most."""
    return max(suggestions, key=lambda suggestion: suggestion.size or 0)


def _sum(counts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)
