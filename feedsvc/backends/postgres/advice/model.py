"""Values of the adviser: statements, their plans, findings, proposals and the whole advice.

None holds a value of a row or of a parameter: texts of statements have `$1` in the place of values,
conditions of plans have `?` in the place of constants.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

StatementSource: TypeAlias = Literal["feedsvc", "pg_stat_statements", "catalogue"]
FindingCode: TypeAlias = Literal[
    "sequential-scan",
    "spilling-sort",
    "spilling-hash",
    "misestimate",
    "nested-loop",
    "heap-fetches",
    "filtered-rows",
    "leaky-operator",
    "jit",
    "missing-statistics",
    "old-statistics",
    "function-not-inlined",
]
ProposalKind: TypeAlias = Literal["index", "drop", "analyze", "setting", "request"]
Proof: TypeAlias = Literal["hypopg", "sample", "unproven"]


@dataclass(frozen=True, slots=True)
class WorkloadStatement:
    """A statement of the workload, and its figures over the time that was looked at.

    `name` is unique among the statements of an advice. `sql` has `$1`, `$2` … for each value.
    """

    name: str
    sql: str
    source: StatementSource
    calls: int
    total_ms: float
    mean_ms: float
    p95_ms: float | None
    """None where only sums are known, as in pg_stat_statements."""
    rows: int | None
    """Rows returned or changed by all calls; None where they are not known."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings of the transaction in which it is planned, for row-level security among others."""
    role: str | None = None
    """The role that it is planned as, as an identifier; None for the connection's own."""
    login: str | None = None
    """The login that runs it; None for the service's."""

    @property
    def rows_per_call(self) -> float | None:
        """Rows of a call on average."""
        return None if self.rows is None or not self.calls else self.rows / self.calls


@dataclass(frozen=True, slots=True)
class PlanNode:
    """A node of a plan. `path` leads to it: `0` is the topmost, `0.1` its second child.

    Estimates are for one run of the node, `cost` in the planner's units with all children.
    """

    path: str
    type: str
    relation: str | None
    """Table with its schema, of an index's bitmap as well."""
    alias: str | None
    index: str | None
    """Index with its schema."""
    rows: float
    width: int
    """Bytes of a row."""
    startup_cost: float
    cost: float
    conditions: Mapping[str, str]
    """`Filter`, `Index Cond`, `Recheck Cond`, `Hash Cond`, `Merge Cond`, `Join Filter`, `TID Cond`,
    `One-Time Filter`, `Order By` and `Function Call` where the node has them, with `?` for each
    constant."""
    keys: tuple[str, ...]
    """Keys of a sort, of groups, or of a hash, with `?` for each constant."""
    output: tuple[str, ...]
    """Expressions that the node gives, with `?` for each constant."""
    relationship: str | None
    """`Outer`, `Inner`, `InitPlan`, `SubPlan`, `Member`, `Subquery`; None of the topmost node."""
    join: str | None
    """`Inner`, `Left`, `Semi`, `Anti` …, of joins."""
    children: tuple["PlanNode", ...] = ()
    workers: int = 0
    """Processes that a `Gather` plans to start; the nodes below it have the rows of one of them."""
    partitions: int = 0
    """Parts in which a hash aggregate is planned to go to files; 0 for none."""

    def walk(self) -> Iterator["PlanNode"]:
        """The node and all below it, from the top."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """A statement's plan, made without its values and without running it."""

    top: PlanNode
    settings: Mapping[str, str]
    """The planner's settings that differ from their defaults."""
    jit: tuple[str, ...]
    """Parts of the work that are compiled first: `Inlining`, `Optimization`, `Expressions` …"""

    @property
    def cost(self) -> float:
        """The planner's estimate for the whole statement, in its own units."""
        return self.top.cost

    @property
    def indexes(self) -> frozenset[str]:
        """Indexes that it uses, with their schemas."""
        return frozenset(node.index for node in self.top.walk() if node.index is not None)

    @property
    def relations(self) -> frozenset[str]:
        """Tables that it reads, with their schemas."""
        return frozenset(node.relation for node in self.top.walk() if node.relation is not None)


@dataclass(frozen=True, slots=True)
class PlanFinding:
    """A fault of a plan, in words, with the node that it comes from."""

    code: FindingCode
    sentence: str
    node: str
    """The node's path."""
    relation: str | None = None
    columns: tuple[str, ...] = ()
    weight: float = 0.0
    """The part of the score that it takes, 0 to 100."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A cure. Costs are the planner's, by the name of each statement that it touches."""

    kind: ProposalKind
    statement: str
    """SQL, or for a `request` the request that replaces many."""
    proof: Proof
    cost_before: Mapping[str, float]
    cost_after: Mapping[str, float]
    size_bytes: int | None
    """Bytes that it takes, or with `drop` gives back, by estimate."""
    write_cost: float | None
    """Pages that a row's entry touches, for each row that is written."""
    helps: tuple[str, ...]
    """Statements whose cost falls."""
    harms: tuple[str, ...]
    """Statements whose cost rises."""
    reason: str


@dataclass(frozen=True, slots=True)
class StatementAdvice:
    """A statement with its plan and all that is known of it.

    `plan` is None where none could be made, and `unplanned` has the reason then.
    """

    statement: WorkloadStatement
    plan: ReadPlan | None
    findings: tuple[PlanFinding, ...]
    score: int | None
    """0 (all is wrong) to 100 (nothing was found); None without a plan."""
    proposals: tuple[Proposal, ...] = ()
    unplanned: str | None = None


@dataclass(frozen=True, slots=True)
class Advice:
    """Statements by total time, the longest first, and proposals over the whole of them."""

    statements: tuple[StatementAdvice, ...]
    proposals: tuple[Proposal, ...] = ()
    lacking: tuple[str, ...] = ()
    """Sentences on what could not be looked at."""
