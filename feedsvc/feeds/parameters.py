"""A query string taken apart, strictly: what is not understood is refused by name."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar
from urllib.parse import parse_qsl

from feedsvc.core.problems import BadParameter, BadRequest

_MOST_PARAMETERS: Final = 200

T = TypeVar("T")


def parse(raw_query: str) -> dict[str, str]:
    """The parameters of a raw query string. Raises BadParameter and BadRequest."""
    try:
        pairs = parse_qsl(
            raw_query,
            keep_blank_values=True,
            errors="surrogateescape",
            max_num_fields=_MOST_PARAMETERS,
            separator="&",
        )
    except ValueError:
        raise BadRequest(f"The query string has over {_MOST_PARAMETERS} parameters.") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if not _is_utf8(name):
            raise BadRequest("A parameter's name is not percent-encoded UTF-8.")
        if name in found:
            raise BadParameter(f"{name!r} may stand only once.", parameter=name)
        if "\0" in name or "\0" in value:
            raise BadParameter("A parameter can't hold NUL.", parameter=name.replace("\0", ""))
        if not _is_utf8(value):
            raise BadParameter(f"{name} is not percent-encoded UTF-8.", parameter=name)
        found[name] = value
    return found


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def refuse_unknown(names: Iterable[str], allowed: Sequence[str]) -> None:
    """Refuse the first name that is not allowed. Raises BadParameter."""
    for name in names:
        if name not in allowed:
            raise unknown(name, allowed)


def unknown(name: str, allowed: Sequence[str]) -> BadParameter:
    """The problem of a parameter that there isn't."""
    return BadParameter(f"There is no parameter {name!r} here.", parameter=name, allowed=allowed)


def choice(parameters: Mapping[str, str], name: str, values: Mapping[str, T], default: T) -> T:
    """The value behind one of the words that a parameter may have. Raises BadParameter."""
    word = parameters.get(name)
    if word is None:
        return default
    if word not in values:
        raise BadParameter(f"{name} can't be {word!r}.", parameter=name, allowed=list(values))
    return values[word]


def read(parameter: str, value: str, reader: Callable[[str], T]) -> T:
    """The value as the reader gives it; what it refuses becomes a BadParameter."""
    try:
        return reader(value)
    except ValueError as error:
        raise BadParameter(
            f"{parameter} must be {error}.", parameter=parameter, allowed=[str(error)]
        ) from None
