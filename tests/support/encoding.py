"""One relation's rows by the SQL projection and by the native encoder, to be held together."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unittest import mock

import asyncpg
import pytest

from feedsvc.commands.demo.embedded import binaries, start_postgres
from feedsvc.datasets.dataset import Column
from feedsvc.feeds.sql.binary_projection import BinaryRow, binary_row
from feedsvc.feeds.sql.csv_projection import csv_record
from feedsvc.feeds.sql.json_projection import (
    json_record,
    json_source,
    named_columns,
    reference,
    token_value,
)
from streams import encoder
from streams.csv_record import PLAIN_CSV, CsvStyle
from tests.support.drawn import SHARES, share
from tests.support.servers import throw_away_folder

needs_encoder = pytest.mark.skipif(
    encoder.MISSING is not None, reason=f"the native encoder was not built: {encoder.MISSING}"
)


@dataclass(frozen=True)
class Form:
    """The encoded form of a row."""

    name: Literal["json", "csv"]
    style: CsvStyle = PLAIN_CSV


DELIMITERS = (",", ";", "\t")
STYLES = (
    CsvStyle(";", True, decimal_comma=True, zone="Asia/Kolkata"),
    CsvStyle("\t", True, quote_all=True, zone="America/New_York"),
    CsvStyle(",", False, quote_all=True),
)


def forms(*delimiters: str) -> tuple[Form, ...]:
    """JSON, and CSV with and without a guard, and in styles of other countries."""
    guarded = [CsvStyle(delimiter, guard) for delimiter in delimiters for guard in (True, False)]
    return Form("json"), *(Form("csv", style) for style in (*guarded, *STYLES))


def some_forms(dice: random.Random) -> tuple[Form, ...]:
    """JSON and two of the others, so that many calls take them all; in `make soak` all of them."""
    json, *others = forms(*DELIMITERS)
    return json, *dice.sample(others, min(len(others), share(2 * SHARES)))


@dataclass(frozen=True)
class Encoded:
    """Records in order, and the texts that make the last one's token."""

    records: list[bytes]
    last: tuple[str | None, ...] | None


@dataclass(frozen=True)
class Source:
    """Some columns of a relation, in an order; `relation` may go on with a WHERE."""

    connection: asyncpg.Connection
    relation: str
    columns: Sequence[Column]
    order: Sequence[Column]

    def select(self, expressions: str, between: str = "") -> str:
        """A statement over the rows."""
        rows = named_columns(f"(SELECT * FROM {self.relation})", (*self.columns, *self.order))
        ordered = ", ".join(map(reference, self.order))
        return f"SELECT {expressions} FROM {rows} {between} ORDER BY {ordered}"

    async def projected(self, form: Form) -> Encoded:
        """The rows as the SQL projection makes records of them."""
        if form.name == "json":
            record, source = json_record(self.columns), json_source(self.columns)
        else:
            record, source = csv_record(self.columns, form.style), ""
        tokens = map(token_value, self.order)
        rows = await self.connection.fetch(self.select(", ".join((record, *tokens)), source))
        last = tuple(None if v is None else str(v) for v in tuple(rows[-1])[1:]) if rows else None
        return Encoded([row[0] for row in rows], last)

    def _planned(self, form: Form) -> tuple[BinaryRow, encoder.Plan]:
        row = binary_row(self.columns, self.order, form.name, form.style)
        return row, encoder.Plan(
            row.columns,
            form.name,
            keys=row.keys,
            delimiter=form.style.delimiter,
            guard=form.style.guard,
            quote_all=form.style.quote_all,
        )

    async def copied(self, form: Form, chunks: random.Random | None = None) -> Encoded:
        """The rows as the encoder makes records of COPY's stream, which is cut at random."""
        row, plan = self._planned(form)
        made = bytearray()

        async def keep(data: bytes) -> None:
            made.extend(data)

        await self.connection.copy_from_query(
            self.select(row.select_list), output=keep, format="binary"
        )
        encoding = encoder.Encoder(plan)
        for chunk in cut(bytes(made), chunks) if chunks else [bytes(made)]:
            encoding.feed_copy(chunk)
        encoding.end_copy()
        return _taken(encoding)

    async def sent(self, form: Form) -> Encoded:
        """The rows as the encoder makes records of what record_send gives."""
        row, plan = self._planned(form)
        rows = await self.connection.fetch(
            f"SELECT record_send(r.*) FROM ({self.select(row.select_list)}) AS r"
        )
        encoding = encoder.Encoder(plan)
        encoding.feed_records([row[0] for row in rows])
        return _taken(encoding)

    async def assert_alike(
        self, shapes: Sequence[Form] = forms(*DELIMITERS), chunks: random.Random | None = None
    ) -> None:
        """In each form, from both sources, the encoder gives what PostgreSQL gives."""
        for form in shapes:
            expected = await self.projected(form)
            assert await self.copied(form, chunks) == expected, form
            assert await self.sent(form) == expected, form


def cut(data: bytes, chunks: random.Random) -> list[bytes]:
    """The data in pieces, some of them of a byte or of none."""
    places = sorted(chunks.randint(0, len(data)) for _ in range(chunks.randint(0, 40)))
    places += [place + 1 for place in places[::4] if place < len(data)]
    ends = [*sorted(places), len(data)]
    return [data[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def _taken(encoding: encoder.Encoder) -> Encoded:
    batch = encoding.take()
    return Encoded([], None) if batch is None else Encoded(batch.records(), batch.last)


@contextmanager
def distribution_postgres(major: int) -> Iterator[str]:
    """The superuser's URL of a server of the distribution's; skips where it has none such."""
    folder = Path(binaries.DISTRIBUTION_FOLDER, str(major), "bin")
    if not folder.is_dir():
        pytest.skip(f"there is no PostgreSQL {major} on this machine")
    with (
        mock.patch.dict(os.environ, {binaries.BIN_VARIABLE: str(folder)}),
        throw_away_folder() as data,
        start_postgres(data) as server,
    ):
        yield server.url()
