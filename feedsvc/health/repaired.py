"""What came of a repair."""

from typing import Literal, NamedTuple, TypeAlias

Outcome: TypeAlias = Literal["done", "nothing", "started", "would", "refused", "failed"]


class Repaired(NamedTuple):
    """`nothing`: there was nothing to do; `would`: a dry run; `refused`: it needs something else
    first; `started`: it goes on, and the log says how it ends.
    """

    outcome: Outcome
    what: str
