"""Accept and Accept-Encoding (RFC 9110, sections 12.5.1 and 12.5.3)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_QVALUE = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


@dataclass(frozen=True, slots=True)
class _Choice:
    """One element of the header: what it names, how much it is wanted, where it stands."""

    name: str
    quality: float
    position: int


def media_type(accept: str, offers: Mapping[str, Sequence[str]]) -> str | None:
    """The offer that an Accept header likes best, by its name; None where none will do.

    `offers` are names with their media types, the server's favourite first. The most specific
    range decides over a media type. Between equals, a type that was named beats one that only a
    wildcard covers, then the header's order decides, then the server's.
    """
    choices = _parse(accept)
    if not choices:
        return None if accept.strip(", \t") else next(iter(offers))
    best: tuple[float, int, int] | None = None
    winner = None
    for name, types in offers.items():
        for offered in types:
            rank = _rank(offered, choices)
            if rank is not None and (best is None or rank > best):
                best, winner = rank, name
    return winner


def _rank(offered: str, choices: Sequence[_Choice]) -> tuple[float, int, int] | None:
    """Quality, specificity, closeness to the header's beginning; None where it is refused."""
    kind = offered.split("/", 1)[0]
    for specificity, pattern in ((2, offered), (1, f"{kind}/*"), (0, "*/*")):
        for choice in choices:
            if choice.name == pattern:
                named = specificity == 2
                rank = (choice.quality, int(named), -choice.position if named else 0)
                return rank if choice.quality > 0 else None
    return None


def coding(accept_encoding: str | None, offers: Sequence[str]) -> str | None:
    """The content coding to send, or None where even `identity` is refused.

    `offers` are the codings on offer, the favourite first, without `identity`, which is always
    there and comes last between equals.
    """
    if accept_encoding is None:
        return "identity"
    wanted = {_CODING_ALIASES.get(c.name, c.name): c.quality for c in _parse(accept_encoding)}
    rest = wanted.get("*")
    best_name, best_quality = None, 0.0
    for name in offers:
        quality = wanted.get(name, rest or 0.0)
        if quality > best_quality:
            best_name, best_quality = name, quality
    # Without a word on it, identity will do but is not preferred.
    identity = wanted.get("identity", rest if rest == 0 else None)
    if identity is None:
        return best_name or "identity"
    return "identity" if identity > best_quality else best_name


_CODING_ALIASES = {"x-gzip": "gzip"}


def _parse(header: str) -> list[_Choice]:
    """The elements of a header in its order; what is malformed is passed over."""
    choices = []
    for position, element in enumerate(header.split(",")):
        name, *parameters = (piece.strip().lower() for piece in element.split(";"))
        quality = _quality(parameters)
        if name and quality is not None:
            choices.append(_Choice(name, quality, position))
    return choices


def _quality(parameters: Sequence[str]) -> float | None:
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            value = value.strip()
            return float(value) if _QVALUE.fullmatch(value) else None
    return 1.0
