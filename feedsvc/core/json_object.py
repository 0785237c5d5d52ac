"""The type of JSON objects, as orjson reads and writes them."""

from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]
