"""The query of a request that follows one feed or several."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from feedsvc.core.problems import BadParameter
from feedsvc.datasets.dataset import RESERVED, Dataset
from feedsvc.feeds import parameters
from feedsvc.feeds.delta_query import DeltaQuery
from feedsvc.feeds.live.event_id import EventId
from feedsvc.feeds.query import FeedQuery, filter_name, filter_names, format_of
from streams.formats import END_ID, NDJSON, SSE
from streams.live import RESET_ID

MOST_FEEDS: Final = 16
"""Feeds of one stream: as many as a cursor can name."""

_OWN: Final = frozenset({"live", "format", "since", "last_event_id", "feed"})
_PARAMETERS: Final = ("columns", "format", "since", "last_event_id", "live")
_OF_STREAM: Final = ("feed", "format", "since", "last_event_id")
_OF_FEED: Final = ("columns",)
_LIVE: Final = {"1": True}


@dataclass(frozen=True, slots=True)
class LiveFeed:
    """One feed of a live answer.

    `name` stands in its events, None where it is the only one. `snapshot` is the query of its rows
    as events, and `changes` the one of what has changed.
    """

    name: str | None
    snapshot: FeedQuery
    changes: DeltaQuery

    @property
    def dataset(self) -> Dataset:
        """The dataset that it is a query of."""
        return self.snapshot.dataset

    @classmethod
    def parse(
        cls, given: Mapping[str, str], dataset: Dataset, name: str | None = None
    ) -> "LiveFeed":
        """The feed of these columns and filters. Raises BadParameter."""
        snapshot = FeedQuery.parse({**given, "format": SSE.name}, dataset)
        rows = FeedQuery.parse({**given, "format": NDJSON.name}, dataset)
        return cls(name, snapshot, DeltaQuery(rows, SSE, "", 0.0, None, False))

    @property
    def identity(self) -> str:
        """The identity among feeds: the same text for the same rows in the same form."""
        rows = self.changes.rows
        columns = [column.name for column in rows.columns]
        filters = sorted((f.column.name, f.op, f.values) for f in rows.filters)
        return repr((self.name, self.dataset.name, columns, filters))


@dataclass(frozen=True, slots=True)
class LiveQuery:
    """Feeds to follow, and the event to go on from: None for a snapshot first.

    `is_over`: an EventSource asks again although it has been sent away for good.
    """

    feeds: tuple[LiveFeed, ...]
    since: EventId | None
    is_over: bool = False

    @classmethod
    def parse(
        cls,
        given: Mapping[str, str],
        dataset: Dataset,
        accept: str = "",
        last_event_id: str | None = None,
    ) -> "LiveQuery":
        """The query of `live=1`. Raises BadParameter and NotAcceptable."""
        parameters.choice(given, "live", _LIVE, True)
        format_of(given, accept, {SSE.name: SSE})
        _refuse_what_is_not_for(given, dataset, _PARAMETERS)
        kept = {name: value for name, value in given.items() if name not in _OWN}
        feed = LiveFeed.parse(kept, dataset)
        return cls((feed,), *_place(given, last_event_id, (feed,)))

    @classmethod
    def parse_several(
        cls,
        given: Mapping[str, str],
        datasets: Mapping[str, Dataset],
        accept: str = "",
        last_event_id: str | None = None,
    ) -> "LiveQuery":
        """The query of `/v1/live` for these feeds. Raises BadParameter and NotAcceptable.

        A parameter of one feed has the feed's name and a dot before its own.
        """
        format_of(given, accept, {SSE.name: SSE})
        own: dict[str, dict[str, str]] = {name: {} for name in datasets}
        for parameter, value in given.items():
            if parameter in _OF_STREAM:
                continue
            name, _, rest = parameter.partition(".")
            if name not in own or not rest:
                offered = [*_OF_STREAM, *(f"{feed}.columns" for feed in datasets)]
                raise parameters.unknown(parameter, offered)
            own[name][rest] = value
        feeds = tuple(_prefixed(name, datasets[name], own[name]) for name in datasets)
        return cls(feeds, *_place(given, last_event_id, feeds))


def _prefixed(name: str, dataset: Dataset, given: Mapping[str, str]) -> LiveFeed:
    """The feed of parameters that had its name before theirs, as problems name them, too."""
    try:
        _refuse_what_is_not_for(given, dataset, _OF_FEED)
        return LiveFeed.parse(given, dataset, name)
    except BadParameter as problem:
        if problem.parameter is not None:
            problem.parameter = f"{name}.{problem.parameter}"
        raise


def _refuse_what_is_not_for(
    given: Mapping[str, str], dataset: Dataset, offered: tuple[str, ...]
) -> None:
    for name in given:
        if name in RESERVED and name not in offered:
            what = f"{name} does not go with live."
            raise BadParameter(what, parameter=name, allowed=offered)
        if name not in RESERVED and filter_name(name, dataset) is None:
            raise parameters.unknown(name, (*offered, *filter_names(dataset)))


def _place(
    given: Mapping[str, str], last_event_id: str | None, feeds: tuple[LiveFeed, ...]
) -> tuple[EventId | None, bool]:
    """The place to go on from: the last event of a reconnecting EventSource, else `since`.

    True beside it where that event was the stream's end.
    """
    text = last_event_id or given.get("last_event_id") or given.get("since")
    if text == END_ID:
        return None, True
    if text is None or text == RESET_ID:
        return None, False
    place = parameters.read("since", text, EventId.parse)
    if place.feed is not None:
        whole = place.feed == len(feeds) and place.token is None
        if not whole and place.feed >= len(feeds):
            raise BadParameter("since must be an id of this stream.", parameter="since")
        if place.token is not None:
            behind(feeds[place.feed].snapshot, place.token)
    return place, False


def behind(query: FeedQuery, token: str | None) -> FeedQuery:
    """The rows of a snapshot behind this one. Raises BadParameter."""
    return query if token is None else query.behind(token)
