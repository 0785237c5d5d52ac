"""Plans as values, from the JSON of EXPLAIN: only what is known to have no value in it is taken."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from feedsvc.backends.postgres.advice import masking
from feedsvc.backends.postgres.advice.model import PlanNode, ReadPlan

_CONDITIONS: Final = (
    "Filter", "Index Cond", "Recheck Cond", "Hash Cond", "Merge Cond", "Join Filter", "TID Cond",
    "One-Time Filter", "Order By", "Function Call",
)  # fmt: skip
_KEYS: Final = ("Sort Key", "Presorted Key", "Group Key", "Cache Key")
_BLOCKING: Final = frozenset({"Sort", "Hash", "BitmapAnd", "BitmapOr", "SetOp", "WindowAgg"})
_REPEATED_CHEAPLY: Final = frozenset({"Materialize", "Memoize", "Result"})


def read_plan(found: Mapping[str, Any]) -> ReadPlan:
    """The plan of one statement, as EXPLAIN (FORMAT JSON) gives it."""
    jit = found.get("JIT", {})
    parts = [name for name, is_on in jit.get("Options", {}).items() if is_on]
    if jit:
        parts.append(f"Functions {int(jit['Functions'])}")
    settings = {str(name): str(value) for name, value in found.get("Settings", {}).items()}
    return ReadPlan(_node(found["Plan"], "0", None), settings, tuple(parts))


def _node(found: Mapping[str, Any], path: str, schema: str | None) -> PlanNode:
    schema = found.get("Schema", schema)
    table, index = found.get("Relation Name"), found.get("Index Name")
    children = [
        _node(child, f"{path}.{place}", schema)
        for place, child in enumerate(found.get("Plans", ()))
    ]
    keys = next((found[name] for name in _KEYS if name in found), ())
    return PlanNode(
        path=path,
        type=("Parallel " if found.get("Parallel Aware") else "") + found["Node Type"],
        relation=f"{schema}.{table}" if table is not None else None,
        alias=found.get("Alias"),
        index=f"{schema}.{index}" if index is not None else None,
        rows=float(found["Plan Rows"]),
        width=int(found["Plan Width"]),
        startup_cost=float(found["Startup Cost"]),
        cost=float(found["Total Cost"]),
        conditions={
            name: masking.condition(_as_text(found[name])) for name in _CONDITIONS if name in found
        },
        keys=tuple(masking.condition(key) for key in _listed(keys)),
        output=tuple(masking.condition(part) for part in found.get("Output", ())),
        relationship=found.get("Parent Relationship"),
        join=found.get("Join Type"),
        children=tuple(children),
        workers=int(found.get("Workers Planned", 0)),
        partitions=int(found.get("Planned Partitions", 0)),
    )


def _as_text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _listed(value: Any) -> Sequence[str]:
    return [value] if isinstance(value, str) else list(value)


@dataclass(frozen=True, slots=True)
class NodeRun:
    """A node with how often it runs, and the part of its rows that is asked for.

    `runs` counts an inner side of a nested loop as often as the outer side has rows, and the
    processes below a `Gather`; `fraction` is below 1 where a LIMIT ends the work early.
    """

    node: PlanNode
    parent: PlanNode | None
    runs: float
    fraction: float

    @property
    def rows(self) -> float:
        """Rows that the node gives in all."""
        return self.node.rows * self.runs * self.fraction


def runs(plan: ReadPlan) -> Iterator[NodeRun]:
    """The nodes from the top."""
    yield from _runs(NodeRun(plan.top, None, 1.0, 1.0))


def _runs(each: NodeRun) -> Iterator[NodeRun]:
    yield each
    node = each.node
    fraction = each.fraction
    if node.type in _BLOCKING or node.type == "Aggregate":
        fraction = 1.0
    elif node.type == "Limit" and node.children[0].rows > node.rows:
        fraction *= node.rows / node.children[0].rows
    times = each.runs * _processes(node.workers)
    for place, child in enumerate(node.children):
        repeated = times
        if node.type == "Nested Loop" and place == 1 and child.type not in _REPEATED_CHEAPLY:
            repeated *= max(1.0, node.children[0].rows * fraction)
        yield from _runs(NodeRun(child, node, repeated, fraction if place == 0 else 1.0))


def _processes(workers: int) -> float:
    """The number by which the planner divides rows (get_parallel_divisor in costsize.c)."""
    return workers + max(0.0, 1 - 0.3 * workers) if workers else 1.0
