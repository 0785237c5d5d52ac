"""Findings of a check, and their report: a line for each kind of warning, SQL on its own lines."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake (`error`: the service refuses to start) or something to mend (`warning`).

    `sql` are statements that mend it. `kind` is the sentence that replaces `what` in a report
    where several warnings of a kind stand on one line. A mistake that `passes` keeps no service
    from starting: it may come and go while that runs.
    """

    severity: Literal["error", "warning"]
    place: str
    what: str
    sql: tuple[str, ...] = ()
    kind: str | None = None
    passes: bool = False

    @property
    def text(self) -> str:
        """Place, sentence and statements on one line, as a log has them."""
        mend = f": {'; '.join(self.sql)}" if self.sql else ""
        return f"{self.place}: {self.what}{mend}"

    def __str__(self) -> str:
        return f"{self.severity}: {self.text}"


def report(findings: Iterable[Finding]) -> Iterator[str]:
    """Lines to read and paste: each finding or kind of warning, then its statements, indented."""
    groups: dict[object, list[Finding]] = {}
    for finding in findings:
        alike = finding.kind is not None and finding.severity == "warning"
        groups.setdefault(finding.kind if alike else id(finding), []).append(finding)
    for first, *others in groups.values():
        if others:
            places = ", ".join(dict.fromkeys(f.place for f in (first, *others)))
            yield f"{first.severity}: {places}: {first.kind}"
        else:
            yield f"{first.severity}: {first.place}: {first.what}"
        statements = [statement for finding in (first, *others) for statement in finding.sql]
        yield from (f"  {statement};" for statement in dict.fromkeys(statements))
