"""The catalogue: named queries with parameters drawn from the data, in `.sql` files.

A query begins with its header, one `-- key: value` a line, continued by indented comments: `query`
(its name), `about`, `tier`, `as` (`feed`: by the reader's role under row-level security; `office`:
by the migrating login), `uses` (the indexes that it needs) and `draw`, a SELECT whose one row has
the parameters, its own `$1` being the largest tenant.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

Tier = Literal["critical", "standard", "analytics"]
Actor = Literal["feed", "office"]

TIER_PAGES: Final[dict[Tier, int]] = {"critical": 100, "standard": 1_000, "analytics": 50_000}
"""Pages of 8 KiB that a query of a tier may touch: what it costs, whatever the machine."""

_HEADER: Final = re.compile(
    r"^-- (query|about|tier|as|uses|draw): (.*(?:\n--  .*)*)$", re.MULTILINE
)


class CatalogueError(Exception):
    """A file of the catalogue is wrong; the message names file and query."""


@dataclass(frozen=True, slots=True)
class CatalogueQuery:
    """A query that the business makes."""

    name: str
    about: str
    tier: Tier
    actor: Actor
    uses: tuple[str, ...]
    draw: str | None
    """The SELECT of its parameters; None for a query without."""
    sql: str
    generic: bool = False
    """True if it is planned without its parameters' values, and not run."""


def read_catalogue(folder: Path) -> list[CatalogueQuery]:
    """The queries of a folder's files, in the order of their names. Raises CatalogueError."""
    queries: list[CatalogueQuery] = []
    for file in sorted(folder.glob("*.sql")):
        text = file.read_text(encoding="utf-8")
        queries += [_query(file, part) for part in re.split(r"(?m)^(?=-- query: )", text) if part]
    names = [query.name for query in queries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise CatalogueError(f"{folder.name}: there are two queries {twice[0]}")
    return queries


def _query(file: Path, part: str) -> CatalogueQuery:
    header = {key: re.sub(r"\n--\s+", " ", value) for key, value in _HEADER.findall(part)}
    sql = _HEADER.sub("", part).strip().removesuffix(";")
    missing = {"query", "about", "tier", "as", "uses"} - header.keys()
    if missing or not sql:
        raise CatalogueError(f"{file.name}: {part[:60]!r} lacks {', '.join(missing) or 'its SQL'}")
    tier, actor = header["tier"], header["as"]
    if tier not in get_args(Tier) or actor not in get_args(Actor):
        raise CatalogueError(
            f"{file.name}: {header['query']}: no such tier or actor: {tier}, {actor}"
        )
    uses = tuple(name.strip() for name in header["uses"].split(","))
    return CatalogueQuery(
        header["query"], header["about"], _tier(tier), _actor(actor), uses, header.get("draw"), sql
    )


def _tier(name: str) -> Tier:
    return next(tier for tier in _tiers() if tier == name)


def _actor(name: str) -> Actor:
    return "feed" if name == "feed" else "office"


def _tiers() -> Sequence[Tier]:
    return tuple(TIER_PAGES)
