"""Findings about sorts and hash tables that go to disk, and loops over many rows."""

from collections.abc import Iterator
from math import ceil, log2
from typing import Final

from feedsvc.backends.postgres.advice.facts import PlanFacts
from feedsvc.backends.postgres.advice.model import PlanFinding, PlanNode
from feedsvc.backends.postgres.advice.plan_nodes import NodeRun, runs
from feedsvc.backends.postgres.advice.weights import weigh

# Bytes of a row in memory besides its columns. The planner counts 24 for a sort (relation_byte_size
# in costsize.c); measured are 64 in release 15, some 20 less in 18.
_SORTED: Final = 64
_HASHED: Final = 32  # ExecChooseHashTableSize in nodeHash.c
_BUCKET: Final = 8
_MANY_LOOPS: Final = 10_000
_MANY_PAIRS: Final = 1_000_000
_ONE_ROW: Final = frozenset({"Materialize", "Memoize", "Result", "Limit", "Aggregate"})


def spilling_sorts(facts: PlanFacts) -> Iterator[PlanFinding]:
    """Sorts of more bytes than `work_mem` has, unless a LIMIT needs only the first of them."""
    for each in runs(facts.plan):
        node = each.node
        if node.type != "Sort":
            continue
        rows = _kept(each)
        size = rows * (_aligned(node.width) + _SORTED)
        if size <= facts.work_mem:
            continue
        yield PlanFinding(
            "spilling-sort",
            f"About {rows:,.0f} rows of {node.width} bytes are sorted, {_mebibytes(size)} where"
            f" work_mem has {_mebibytes(facts.work_mem)}: the sort goes to disk.",
            node.path,
            _first_relation(node),
            (),
            weigh("spilling-sort", each, facts.plan),
        )


def spilling_hashes(facts: PlanFacts) -> Iterator[PlanFinding]:
    """Hash tables of joins and of groups that are larger than their memory."""
    for each in runs(facts.plan):
        node = each.node
        size = node.rows * (_aligned(node.width) + _HASHED)
        size += _BUCKET * 2 ** ceil(log2(max(node.rows, 1)))
        has = f"where hash tables have {_mebibytes(facts.hash_mem)}"
        if node.type.endswith("Hash") and size > facts.hash_mem:
            what = f"About {node.rows:,.0f} rows are hashed, {_mebibytes(size)} {has}"
        elif node.partitions:
            what = f"About {node.rows:,.0f} groups are hashed in {node.partitions} parts, {has}"
        else:
            continue
        yield PlanFinding(
            "spilling-hash",
            f"{what} (work_mem times hash_mem_multiplier): they go to disk.",
            node.path,
            _first_relation(node),
            (),
            weigh("spilling-hash", each, facts.plan),
        )


def nested_loops(facts: PlanFacts) -> Iterator[PlanFinding]:
    """Nested loops that run ten thousand times or more, or over a million pairs of rows."""
    for each in runs(facts.plan):
        node = each.node
        if node.type != "Nested Loop":
            continue
        outer, inner = node.children[0], node.children[1]
        loops = outer.rows * each.runs * each.fraction
        if max(loops / _MANY_LOOPS, loops * inner.rows / _MANY_PAIRS) < 1:
            continue
        if inner.type in _ONE_ROW and inner.rows <= 1:
            continue
        over = _first_relation(inner)
        yield PlanFinding(
            "nested-loop",
            f"{over or 'The inner side'} is looked at about {loops:,.0f} times, once for each row"
            f" of {_first_relation(outer) or 'the outer side'}, for {inner.rows:,.0f} rows each.",
            node.path,
            over,
            (),
            weigh("nested-loop", each, facts.plan),
        )


def _aligned(width: int) -> int:
    return (width + 7) // 8 * 8


def _kept(each: NodeRun) -> float:
    """Rows that the sort has in memory or on disk: all, or those that a LIMIT asks for."""
    parent = each.parent
    if parent is not None and parent.type == "Limit":
        return min(parent.rows, each.node.rows)
    return each.node.rows


def _first_relation(node: PlanNode) -> str | None:
    return next((found.relation for found in node.walk() if found.relation is not None), None)


def _mebibytes(size: float) -> str:
    return f"{size / (1 << 20):,.1f} MiB"
