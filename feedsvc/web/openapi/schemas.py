"""Building blocks of the descriptions of operations."""

from collections.abc import Mapping
from typing import Final

from feedsvc.core.json_object import Json

# What any guarded request may be answered with, beside what its operation lists.
REFUSALS: Final = (400, 401, 403, 404, 405, 408, 413, 414, 415, 429, 431, 500, 501, 503, 504)
NAMES: Final = {"type": "array", "items": {"type": "string"}}
ROW: Final = {"type": "object"}
TEXT: Final = {"type": "string"}


def parameter(name: str, description: str, schema: Json, place: str = "query") -> Json:
    """A parameter, in the query by default."""
    return {"name": name, "in": place, "description": description, "schema": schema}


def answer(what: str, media: Mapping[str, Json], *names: str) -> Json:
    """An answer with a body of these types, and the headers that are worth a word."""
    described = {name: {"schema": {"type": "string"}} for name in ("X-Request-ID", *names)}
    return {"description": what, "headers": described, "content": content(media)}


def content(media: Mapping[str, Json]) -> Json:
    """A body of these types."""
    return {kind: {"schema": schema} for kind, schema in media.items()}
