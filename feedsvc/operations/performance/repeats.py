"""Requests of one principal that one request could replace, found as they end.

Values are held as hashes of this process alone, so that none can be read from its figures.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias
from urllib.parse import unquote_plus

from feedsvc.core.events import Observers, RepeatPattern, RequestEnded, RequestsRepeated
from feedsvc.datasets.dataset import RESERVED, Dataset
from feedsvc.feeds.query import filter_name

RunName: TypeAlias = tuple[RepeatPattern, str, int]
"""Pattern, the filter's column or nothing, and the hash of what is the same in all requests."""
_RunKey: TypeAlias = tuple[tuple[str, str | None, str], RunName]

MANY: Final = 20
"""Requests with a value each, within `WINDOW`, that are no coincidence."""
WINDOW: Final = 30.0
"""Seconds in which they end."""
MOST_RUNS: Final = 2_000
"""Runs that are held at most, up to 3 KB each; the least recently used falls out."""
SMALL_LIMIT: Final = 10
"""The largest `limit` with which a loop over `after` counts."""

_FEED: Final = "/v1/feeds/{dataset}"
_ROW: Final = "/v1/feeds/{dataset}/{key}"
_FOLLOWING: Final = frozenset({"since", "live"})
_OF_RESUMPTION: Final = "Last-Event-ID"
_ROWS: Final[RunName] = ("row-by-key", "", 0)
_SMALL_LIMITS: Final = frozenset(f"limit={rows}" for rows in range(1, SMALL_LIMIT + 1))
_MOST_FILTERS: Final = 4  # of one request; each of them makes a run of its own


class RequestRepeats:
    """The observer of requests that publishes `RequestsRepeated`.

    A principal at one address is one caller, so that visitors behind a common token are told apart
    where a trusted proxy names them. Only what succeeded counts, so retries are none, and time is
    that of the events.
    """

    def __init__(self, datasets: Mapping[str, Dataset], observers: Observers) -> None:
        self._datasets = datasets
        self._observers = observers
        self._runs: OrderedDict[_RunKey, _Run] = OrderedDict()

    def observe(self, ended: RequestEnded) -> None:
        """Count the request in each run that it belongs to."""
        query, principal, name = ended.query, ended.principal, ended.dataset
        if not query or ended.result != "complete" or principal is None or name is None:
            return
        dataset = self._datasets.get(name)
        if dataset is None or ended.method != "GET":
            return
        who = principal.identity, ended.address, name
        for run, value in runs_of(ended.route, query, dataset):
            added = self._run((who, run)).add(value, ended.at, ended.seconds)
            if added is not None:
                pattern, column, _ = run
                self._observers.publish(RequestsRepeated(ended.at, pattern, name, column, *added))

    def _run(self, key: _RunKey) -> "_Run":
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = _Run()
            if len(self._runs) > MOST_RUNS:
                self._runs.popitem(last=False)
        else:
            self._runs.move_to_end(key)
        return run

    @property
    def held(self) -> int:
        """Runs that are held, `MOST_RUNS` at most."""
        return len(self._runs)


class _Run:
    """The latest values of a run, each with its time and seconds."""

    __slots__ = ("_is_found", "_seen")

    def __init__(self) -> None:
        self._seen: dict[int, tuple[float, float]] = {}
        self._is_found = False

    def add(self, value: int, at: float, seconds: float) -> tuple[int, float, bool] | None:
        """Requests and lost seconds that the run now has more, and whether it begins.

        None while it is no repetition. One of the requests was needed, so its time isn't lost.
        """
        seen = self._seen
        is_new = seen.pop(value, None) is None
        seen[value] = at, seconds
        if not is_new:
            return None
        if len(seen) > MANY:
            del seen[next(iter(seen))]
        if len(seen) < MANY:
            return None
        began, needed = seen[next(iter(seen))]
        if at - began > WINDOW:
            if self._is_found:  # or what is counted already would count again
                self._is_found = False
                self._seen = {value: (at, seconds)}
            return None
        if self._is_found:
            return 1, seconds, False
        self._is_found = True
        return MANY, sum(each for _, each in seen.values()) - needed, True


def runs_of(route: str, query: str, dataset: Dataset) -> Sequence[tuple[RunName, int]]:
    """The runs that a request may belong to, each with the hash of the value that differs there.

    `query` is that of `RequestEnded`. Plain tuples, for this runs for each request.
    """
    if route == _FEED:
        return _of_page(query, dataset)
    if route == _ROW and query.startswith("key="):
        return ((_ROWS, hash(query.partition("&")[0])),)
    return ()


def _of_page(query: str, dataset: Dataset) -> Sequence[tuple[RunName, int]]:
    after, limit = "", ""
    filters: list[str] = []
    for part in query.split("&"):
        name = part.partition("=")[0]
        if name not in RESERVED:
            if name != _OF_RESUMPTION:
                filters.append(part)
        elif name == "limit":
            limit = part
        elif name == "after":
            after = part
        elif name in _FOLLOWING:
            return ()
    found = _by_filter(filters, dataset) if filters else []
    if after and limit in _SMALL_LIMITS:
        found.append((("small-pages", "", hash(tuple(filters))), hash(after)))
    return found


def _by_filter(filters: Sequence[str], dataset: Dataset) -> list[tuple[RunName, int]]:
    found: list[tuple[RunName, int]] = []
    if len(filters) > _MOST_FILTERS:
        return found
    for place, part in enumerate(filters):
        name = part.partition("=")[0]
        meant = filter_name(name if name in dataset.filters else unquote_plus(name), dataset)
        if meant is not None and meant[1] == "eq":
            rest = hash((*filters[:place], *filters[place + 1 :]))
            found.append((("page-by-filter", meant[0], rest), hash(part)))
    return found
