"""The query of a request for what has changed since a cursor."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from feedsvc.core.problems import BadParameter
from feedsvc.datasets.dataset import RESERVED, Dataset
from feedsvc.feeds import parameters
from feedsvc.feeds.query import FeedQuery, filter_name, filter_names, format_of
from streams.formats import NDJSON, SSE, Format

LONGEST_WAIT: Final = 30.0
"""Seconds that a request may wait for a change."""

_SECONDS: Final = re.compile(r"[0-9]{1,2}(\.[0-9]{1,9})?")
_FLAG: Final = {"0": False, "1": True}
_FRAMED: Final = {"1": True}
_FORMATS: Final[Mapping[str, Format]] = {form.name: form for form in (NDJSON, SSE)}
_OWN: Final = frozenset({"format", "frames", "last_event_id", "since", "wait", "seen", "digest"})
_PARAMETERS: Final = ("columns", "format", "since", "wait", "seen", "digest")
_FORMAT_PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {
    NDJSON.name: ("frames",),
    SSE.name: ("last_event_id",),
}


@dataclass(frozen=True, slots=True)
class DeltaQuery:
    """A request for what has changed of a feed.

    `rows` is the query of all rows that the caller follows, as NDJSON in the order of the key, and
    `format` the one of the answer. `since` is a cursor's text, `wait` the seconds to wait for a
    change, and `seen` a transaction that the answer's state has to contain.
    """

    rows: FeedQuery
    format: Format
    since: str
    wait: float
    seen: int | None
    digest: bool

    @property
    def dataset(self) -> Dataset:
        """The dataset that it is a query of."""
        return self.rows.dataset

    @classmethod
    def parse(
        cls,
        given: Mapping[str, str],
        dataset: Dataset,
        accept: str = "",
        last_event_id: str | None = None,
    ) -> "DeltaQuery":
        """The query of these parameters and headers. Raises BadParameter and NotAcceptable."""
        form = format_of(given, accept, _FORMATS)
        _refuse_what_is_not_for(form, given, dataset)
        parameters.choice(given, "frames", _FRAMED, True)
        resumed = (last_event_id or given.get("last_event_id")) if form is SSE else None
        rows = {name: value for name, value in given.items() if name not in _OWN}
        return cls(
            rows=FeedQuery.parse({**rows, "format": NDJSON.name}, dataset),
            format=form,
            since=resumed or given["since"],
            wait=parameters.read("wait", given.get("wait", "0"), _seconds),
            seen=parameters.read("seen", given["seen"], _xid) if "seen" in given else None,
            digest=parameters.choice(given, "digest", _FLAG, False),
        )


def _refuse_what_is_not_for(form: Format, given: Mapping[str, str], dataset: Dataset) -> None:
    offered = (*_PARAMETERS, *_FORMAT_PARAMETERS[form.name])
    for name in given:
        if name in RESERVED and name not in offered:
            what = f"{name} does not go with since."
            raise BadParameter(what, parameter=name, allowed=offered)
        if name not in RESERVED and filter_name(name, dataset) is None:
            raise parameters.unknown(name, (*offered, *filter_names(dataset)))


def _seconds(value: str) -> float:
    seconds = float(value) if _SECONDS.fullmatch(value) else -1.0
    if not 0 <= seconds <= LONGEST_WAIT:
        raise ValueError(f"a number of seconds from 0 to {LONGEST_WAIT:.0f}")
    return seconds


def _xid(value: str) -> int:
    """A transaction's number as `pg_current_xact_id()` gives it."""
    if not (value.isascii() and value.isdigit() and len(value) <= 20 and 3 <= int(value) < 2**64):
        raise ValueError("a transaction's number, as pg_current_xact_id() gives it")
    return int(value)
