"""`config/alerts.toml`: figures, their thresholds and durations, and the first thing to do."""

import operator
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from feedsvc.operations.alerts.figures import FIGURES, Selector

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION: Final = re.compile(r"([0-9]{1,6})([smhd])")
_LONGEST: Final = 30 * 86_400
_COMPARE: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


class AlertsError(Exception):
    """The alerts file can't be used; each line of the message names a key and its mistake."""


class KnownNames(NamedTuple):
    """The names that a selector may have."""

    datasets: Collection[str]
    routes: Collection[str]
    pools: Collection[str]
    checks: Collection[str] = ()


def seconds(given: Any) -> float:
    """Seconds of a duration such as 90s, 5m, 2h or 1d. Raises ValueError."""
    parts = _DURATION.fullmatch(given) if isinstance(given, str) else None
    found = int(parts[1]) * _UNITS[parts[2]] if parts else None
    if found is None or found > _LONGEST:
        raise ValueError("a duration is a number and a unit, up to 30d: 90s, 5m, 2h")
    return float(found)


Duration: TypeAlias = Annotated[float, BeforeValidator(seconds)]
_Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
_Number: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]


class Rule(BaseModel):
    """One alert. It fires once `figure comparison threshold` has held `for` so long.

    It is over once the figure was at `clear` or better (the threshold, unless it is set) for
    `clear_for`. In between it stays as it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    figure: str
    comparison: Literal[">", ">=", "<", "<="] = ">"
    threshold: _Number
    hold: Duration = Field(0.0, alias="for")
    clear: _Number | None = None
    clear_for: Duration = 60.0
    severity: Literal["critical", "warning", "info"]
    # The first thing to do: a line of the runbook.
    todo: Annotated[str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True)]
    # With fewer requests than this in the minute or two there is no figure: one in two is no rate.
    least: int = Field(1, ge=1, le=1_000_000)
    dataset: str | None = None
    route: str | None = None
    pool: str | None = None
    check: str | None = None

    @model_validator(mode="after")
    def _clears_on_the_right_side(self) -> "Rule":
        if self.clear is not None and self.holds(self.clear) and self.clear != self.threshold:
            raise ValueError(
                f"clear: the alert would be over at {self.clear:g} and fire at it;"
                f" {self.figure} is better {'below' if self.comparison[0] == '>' else 'above'}"
                f" {self.threshold:g}"
            )
        return self

    @property
    def selector(self) -> Selector:
        """The scope of the figure."""
        return Selector(self.dataset, self.route, self.pool, self.least, self.check)

    def holds(self, value: float | None) -> bool:
        """Return whether this value is trouble; None is not."""
        return value is not None and _COMPARE[self.comparison](value, self.threshold)

    def is_clear(self, value: float | None) -> bool:
        """Return whether trouble is over at this value."""
        if value is None or self.clear is None:
            return not self.holds(value)
        return not _COMPARE[self.comparison](value, self.clear)


_RULES: Final = TypeAdapter(dict[_Name, Rule])


def load(file: Path, known: KnownNames) -> dict[str, Rule]:
    """The alerts of this file by their names. Raises AlertsError."""
    try:
        plain = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise AlertsError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AlertsError(f"{file}: {error}") from None
    try:
        rules = _RULES.validate_python(plain)
    except ValidationError as error:
        raise AlertsError("\n".join(_mistake(file, item) for item in error.errors())) from None
    wrong = [f"{file}: {name}.{what}" for name, rule in rules.items() for what in _of(rule, known)]
    if wrong:
        raise AlertsError("\n".join(wrong))
    return rules


def _of(rule: Rule, known: KnownNames) -> Iterator[str]:
    """The faults of a rule, each beginning with the key to mend."""
    figure = FIGURES.get(rule.figure)
    if figure is None:
        yield f"figure: there is no {rule.figure!r}; there are {', '.join(FIGURES)}"
        return
    named = {"dataset": known.datasets, "route": known.routes, "pool": known.pools}
    named["check"] = known.checks
    for key, values in named.items():
        value = getattr(rule, key)
        if value is None:
            continue
        if key not in figure.selectors:
            yield f"{key}: {rule.figure} is not of one {key}"
        elif value not in values:
            yield f"{key}: there is no {value!r}; there are {', '.join(sorted(values))}"


def _mistake(file: Path, item: Mapping[str, Any]) -> str:
    place = [str(part) for part in item["loc"] if part != "[key]"]
    what = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        what = "there is no such key"
    elif item["type"] == "missing":
        what = "it must be there"
    elif what.startswith("clear: "):
        place, what = [*place, "clear"], what.removeprefix("clear: ")
    return f"{file}: {'.'.join(place)}: {what}"
