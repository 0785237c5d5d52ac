"""The parameters of a CSV file's style, judged together."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final

from feedsvc.core.problems import BadParameter
from feedsvc.feeds import parameters
from streams.csv_record import CsvStyle

CSV_STYLES: Final = ("delimiter", "guard", "decimal", "datetime", "tz", "quote")

_DELIMITERS: Final = {",": ",", ";": ";", "tab": "\t"}
_GUARDS: Final = {"on": True, "off": False}
_QUOTES: Final = {"minimal": False, "all": True}
_DECIMALS: Final = {"point": False, "comma": True}
_DATETIMES: Final = {"iso": False, "excel": True}
_UTC: Final = "UTC"


def csv_style(given: Mapping[str, str]) -> CsvStyle:
    """The style that the parameters ask for. Raises BadParameter."""
    delimiter = parameters.choice(given, "delimiter", _DELIMITERS, ",")
    return CsvStyle(
        delimiter=delimiter,
        guard=parameters.choice(given, "guard", _GUARDS, True),
        quote_all=parameters.choice(given, "quote", _QUOTES, False),
        decimal_comma=_decimal_comma(given, delimiter),
        zone=_zone(given),
    )


def _decimal_comma(given: Mapping[str, str], delimiter: str) -> bool:
    wanted = parameters.choice(given, "decimal", _DECIMALS, False)
    if wanted and delimiter == ",":
        allowed = ["point", "comma with delimiter=;", "comma with delimiter=tab"]
        what = "decimal can't be 'comma' where the delimiter is a comma too."
        raise BadParameter(what, parameter="decimal", allowed=allowed)
    return wanted


def _zone(given: Mapping[str, str]) -> str | None:
    """The zone that timestamps are written in, None where they have their offset."""
    if parameters.choice(given, "datetime", _DATETIMES, False):
        return parameters.read("tz", given.get("tz", _UTC), _zone_name)
    if "tz" in given:
        what = "tz is for datetime=excel alone; other timestamps have their offset."
        raise BadParameter(what, parameter="tz", allowed=["with datetime=excel"])
    return None


def _zone_name(value: str) -> str:
    if value not in _zones():
        raise ValueError("a name of the IANA time zone database, such as Europe/Berlin")
    return value


@cache
def _zones() -> frozenset[str]:
    """The names of the IANA database: the package's list, which is alike on every machine."""
    return frozenset((files("tzdata") / "zones").read_text(encoding="utf-8").split())
