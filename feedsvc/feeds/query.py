"""The query of a request, parsed and judged before anything else is touched."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from feedsvc.core.problems import BadParameter, NotAcceptable
from feedsvc.datasets.dataset import KEY_ORDER, RESERVED, Column, Dataset, Op, OrderColumn
from feedsvc.datasets.values import uuid_text
from feedsvc.feeds import parameters
from feedsvc.feeds.csv_parameters import CSV_STYLES, csv_style
from streams import negotiation, tokens
from streams.csv_record import PLAIN_CSV, csv_record
from streams.formats import CSV, END_ID, FORMATS, NDJSON, SSE, Format, Layout

MOST_ROWS: Final = 2**63 - 1

_SECONDS: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{0,9})?|\.[0-9]{1,9}")
_FLAG: Final = {"0": False, "1": True}
_ITEM: Final = re.compile(r"""(?:"((?:[^"]|"")*)"|((?:[^",][^,]*)?))(,|\Z)""")
_MOST_LISTED: Final = 1_000  # values of `in`
_OF_DELTAS: Final = ("wait", "seen", "digest")
_PARAMETERS: Final = ("columns", "limit", "order", "after", "export", "format")
_FORMAT_PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {
    CSV.name: ("header", "bom", *CSV_STYLES),
    NDJSON.name: ("frames", "progress"),
    SSE.name: ("progress", "last_event_id"),
}


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on one column. `in` has any number of values, every other operator one."""

    column: Column
    op: Op
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FeedQuery:
    """One feed as it was asked for; the same words always make the same one.

    `after` holds a text for each order column, `export` the name that was asked for.
    """

    dataset: Dataset
    format: Format
    layout: Layout
    columns: tuple[Column, ...]
    order: tuple[OrderColumn, ...]
    filters: tuple[Filter, ...]
    limit: int | None
    after: tuple[str, ...] | None
    progress: float
    export: str | None
    # An EventSource that has already received its `end` asks again all the same.
    is_over: bool = False

    @property
    def is_framed(self) -> bool:
        """Return whether the format can show progress and errors."""
        return self.format is SSE or self.layout.frames

    @property
    def is_followed(self) -> bool:
        """Return whether it has all rows that there are, in a format that can show a cursor."""
        return self.is_framed and self.limit is None and self.after is None

    @property
    def after_token(self) -> str | None:
        """The token of the row that the query starts behind."""
        return None if self.after is None else tokens.encode(self.after)

    def behind(self, token: str) -> "FeedQuery":
        """The same behind the row of this token. Raises BadParameter."""
        return replace(self, after=_order_values("since", token, self.order))

    @classmethod
    def parse(
        cls,
        given: Mapping[str, str],
        dataset: Dataset,
        accept: str = "",
        last_event_id: str | None = None,
    ) -> "FeedQuery":
        """The query of these parameters and headers. Raises BadParameter and NotAcceptable."""
        form = format_of(given, accept, FORMATS)
        _refuse_what_is_not_for(form, given, dataset)
        columns = _columns(given, dataset)
        order = _order(given, dataset)
        seen = last_event_id if form is SSE else None
        is_over = form is SSE and (seen or given.get("last_event_id")) == END_ID
        layout = Layout(
            columns=tuple(column.name for column in columns),
            frames=parameters.choice(given, "frames", _FLAG, False),
            header=parameters.choice(given, "header", _FLAG, True),
            bom=parameters.choice(given, "bom", _FLAG, False),
            csv=csv_style(given) if form is CSV else PLAIN_CSV,
        )
        return cls(
            dataset=dataset,
            format=form,
            layout=layout,
            columns=columns,
            order=order,
            filters=_filters(given, dataset),
            limit=parameters.read("limit", given["limit"], _limit) if "limit" in given else None,
            after=None if is_over else _after(given, order, seen),
            progress=parameters.read("progress", given.get("progress", "1"), _seconds),
            export=parameters.read("export", given["export"], uuid_text)
            if "export" in given
            else None,
            is_over=is_over,
        )


def parse_columns(given: Mapping[str, str], dataset: Dataset) -> tuple[Column, ...]:
    """The columns of a request for one row, which has no other parameter."""
    parameters.refuse_unknown(given, ("columns",))
    return _columns(given, dataset)


def parse_key(token: str, dataset: Dataset) -> tuple[str, ...]:
    """The key's texts of one row's URL. Raises ValueError where no row can have such a key."""
    parts = tokens.decode(token)
    if len(parts) != len(dataset.key):
        raise ValueError(f"the key has {len(dataset.key)} parts")
    return tuple(_reader(column)(part) for column, part in zip(dataset.key, parts, strict=True))


def format_of(given: Mapping[str, str], accept: str, formats: Mapping[str, Format]) -> Format:
    """The format that the parameters name, else the one of these that Accept prefers.

    Raises BadParameter and NotAcceptable.
    """
    if "format" in given:
        return parameters.choice(given, "format", formats, NDJSON)
    offers = {name: form.media_types for name, form in formats.items()}
    name = negotiation.media_type(accept, offers)
    if name is None:
        types = [media_type for offered in offers.values() for media_type in offered]
        raise NotAcceptable("No format that is offered here matches Accept.", allowed=types)
    return formats[name]


def _refuse_what_is_not_for(form: Format, given: Mapping[str, str], dataset: Dataset) -> None:
    offered = (*_PARAMETERS, *_FORMAT_PARAMETERS.get(form.name, ()))
    for name in given:
        if name in _OF_DELTAS:
            raise BadParameter(f"{name} goes with since.", parameter=name, allowed=offered)
        if name in RESERVED and name not in offered:
            users = [f for f, extra in _FORMAT_PARAMETERS.items() if name in extra]
            what = f"{name} is for {' and '.join(users)} alone, and this is {form.name}."
            raise BadParameter(what, parameter=name, allowed=offered)
        if name not in RESERVED and filter_name(name, dataset) is None:
            raise parameters.unknown(name, (*offered, *filter_names(dataset)))


def _columns(given: Mapping[str, str], dataset: Dataset) -> tuple[Column, ...]:
    if "columns" not in given:
        return tuple(dataset.columns.values())
    names = _listed("columns", given["columns"])
    for name in names:
        if name not in dataset.columns:
            raise BadParameter(
                f"There is no column {name!r}.", parameter="columns", allowed=list(dataset.columns)
            )
        if names.count(name) > 1:
            raise BadParameter(f"{name!r} stands there twice.", parameter="columns")
    if csv_record(names, PLAIN_CSV) != given["columns"]:
        what = "A name is quoted only where it holds a comma, a quote or a line break."
        raise BadParameter(what, parameter="columns", allowed=list(dataset.columns))
    return tuple(dataset.columns[name] for name in names)


def _order(given: Mapping[str, str], dataset: Dataset) -> tuple[OrderColumn, ...]:
    return parameters.choice(given, "order", dataset.orders, dataset.orders[KEY_ORDER])


def _limit(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 19 and int(value) <= MOST_ROWS):
        raise ValueError(f"a whole number from 0 to {MOST_ROWS}")
    return int(value)


def _seconds(value: str) -> float:
    seconds = float(value) if _SECONDS.fullmatch(value) else 0.0
    if not 0.1 <= seconds <= 60:
        raise ValueError("a number of seconds from 0.1 to 60")
    return seconds


def _after(
    given: Mapping[str, str], order: tuple[OrderColumn, ...], last_event_id: str | None
) -> tuple[str, ...] | None:
    """The row to start behind: of a reconnecting EventSource first, then `after`."""
    candidates = (
        ("Last-Event-ID", last_event_id),
        ("last_event_id", given.get("last_event_id")),
        ("after", given.get("after")),
    )
    for name, token in candidates:
        if token is not None:
            return _order_values(name, token, order)
    return None


def _order_values(name: str, token: str, order: tuple[OrderColumn, ...]) -> tuple[str, ...]:
    columns = [part.column for part in order]
    names = ",".join(column.name for column in columns)
    try:
        parts = tokens.decode(token)
    except ValueError as error:
        raise BadParameter(f"{name} is no token: {error}.", parameter=name) from None
    if len(parts) != len(columns):
        what = f"{name} must have {len(columns)} parts in this order, one for each of {names}."
        raise BadParameter(what, parameter=name, allowed=[names])
    return tuple(
        parameters.read(name, part, _naming(column))
        for column, part in zip(columns, parts, strict=True)
    )


def _naming(column: Column) -> Callable[[str], str]:
    """The column's reader, whose complaint says which part of a token it was."""
    reader = _reader(column)

    def read(value: str) -> str:
        try:
            return reader(value)
        except ValueError as error:
            raise ValueError(f"a token whose part for {column.name} is {error}") from None

    return read


def _reader(column: Column) -> Callable[[str], str]:
    reader = column.reader()
    if reader is None:
        # The catalog's check refuses such a column where one would be read.
        raise TypeError(f"{column.name} can't be a parameter")
    return reader


def filter_names(dataset: Dataset) -> list[str]:
    """The names of the parameters that are filters."""
    names: list[str] = []
    for column, ops in dataset.filters.items():
        names.extend(f"{column}.{op}" if op != "eq" else column for op in ops)
    return names


def filter_name(name: str, dataset: Dataset) -> tuple[str, Op] | None:
    """The column and operator of a parameter's name, None where it is no filter."""
    if name in dataset.filters and "eq" in dataset.filters[name]:
        return name, "eq"
    column, _, op = name.rpartition(".")
    for offered in dataset.filters.get(column, ()):
        if offered == op:
            return column, offered
    return None


def _filters(given: Mapping[str, str], dataset: Dataset) -> tuple[Filter, ...]:
    found: dict[tuple[str, Op], Filter] = {}
    for name, value in given.items():
        meant = None if name in RESERVED else filter_name(name, dataset)
        if meant is None:
            continue
        if meant in found:
            raise BadParameter(f"{name!r} stands there twice, once as eq.", parameter=name)
        column, op = dataset.all_columns[meant[0]], meant[1]
        found[meant] = Filter(column, op, _filter_values(name, op, column, value))
    return tuple(found.values())


def _filter_values(name: str, op: Op, column: Column, value: str) -> tuple[str, ...]:
    if op == "is":
        return (parameters.choice({name: value}, name, _NULLS, ""),)
    if op == "in":
        return tuple(parameters.read(name, v, _reader(column)) for v in _listed(name, value))
    return (parameters.read(name, value, _reader(column)),)


_NULLS: Final = {"null": "null", "notnull": "notnull"}


def _listed(name: str, value: str) -> list[str]:
    """The items of a list: joined with commas, one that holds a comma in double quotes."""
    items: list[str] = []
    item = _ITEM.match(value)
    while item is not None:
        items.append(item[2] if item[1] is None else item[1].replace('""', '"'))
        if len(items) > _MOST_LISTED:
            what = f"{name} has more than {_MOST_LISTED:,} values."
            raise BadParameter(what, parameter=name, allowed=[f"1 to {_MOST_LISTED} values"])
        if not item[3]:
            return items
        item = _ITEM.match(value, item.end())
    what = f"{name} must be items joined with commas, one with a comma in double quotes."
    raise BadParameter(what, parameter=name)
