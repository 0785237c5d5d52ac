"""An advice as text."""

from feedsvc.backends.postgres.advice.model import (
    Advice,
    PlanFinding,
    StatementAdvice,
    WorkloadStatement,
)
from feedsvc.commands.advice_text import lines


def test_it_shows_twenty_statements_that_have_findings_and_counts_the_rest() -> None:
    finding = PlanFinding("jit", "it is compiled", "0")
    statements = [
        StatementAdvice(
            WorkloadStatement(f"q{number}", "", "catalogue", 0, 0.0, 0.0, None, None),
            None,
            (finding,) if number % 2 else (),
            50,
        )
        for number in range(50)
    ]
    said = list(lines(Advice(tuple(statements), (), ("the rest",)), ()))
    assert said[0] == "nothing to propose"
    named = [line.partition(":")[0] for line in said if ": score 50" in line]
    assert named == [f"q{number}" for number in range(1, 40, 2)]
    assert said[-2:] == ["5 more statements with findings: --json", "not seen: the rest"]
