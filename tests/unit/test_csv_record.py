"""CSV records as Python and the native encoder write them, held against the contract's rules."""

import csv
import io
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import encoder
from streams.csv_record import CsvStyle, csv_record
from tests.support import csv_rule
from tests.support.encoding import needs_encoder
from tests.support.wire import sent_row

every_delimiter = pytest.mark.parametrize("delimiter", [",", ";", "\t"])
every_guard = pytest.mark.parametrize("guard", [True, False])
every_quote = pytest.mark.parametrize("quote_all", [True, False])
TOUCHY = st.text(st.sampled_from(",;\t|=@+-＝＋－＠＜ｆ\ufeff\r\n\"' 1a(é"), max_size=24)
TEXTS = st.sampled_from(csv_rule.CELLS) | TOUCHY | st.text()


@every_delimiter
@every_guard
@every_quote
@given(fields=st.lists(TEXTS, min_size=1))
def test_a_record_is_written_by_the_rules(
    delimiter: str, guard: bool, quote_all: bool, fields: list[str]
) -> None:
    rule = partial(csv_rule.field, delimiter=delimiter, guard=guard, quote_all=quote_all)
    style = CsvStyle(delimiter, guard, quote_all)
    assert csv_record(fields, style) == delimiter.join(map(rule, fields))


@every_delimiter
@given(fields=st.lists(TEXTS, min_size=1))
def test_a_csv_record_reads_back(delimiter: str, fields: list[str]) -> None:
    text = io.StringIO(csv_record(fields, CsvStyle(delimiter)) + "\r\n", newline="")
    assert list(csv.reader(text, delimiter=delimiter, strict=True)) == [fields]


@needs_encoder
@every_delimiter
@every_guard
@every_quote
@given(texts=st.lists(st.none() | TEXTS, min_size=1))
def test_the_encoder_writes_a_text_by_the_rules(
    delimiter: str, guard: bool, quote_all: bool, texts: list[str | None]
) -> None:
    columns = [encoder.EncodedColumn(f"c{n}", "text", guard) for n, _ in enumerate(texts)]
    plan = encoder.Plan(columns, "csv", delimiter=delimiter, guard=guard, quote_all=quote_all)
    encoding = encoder.Encoder(plan)
    encoding.feed_records([sent_row([None if t is None else t.encode() for t in texts])])
    batch = encoding.take()
    assert batch is not None
    rule = partial(csv_rule.field, delimiter=delimiter, guard=guard, quote_all=quote_all)
    assert bytes(batch).decode() == delimiter.join(map(rule, texts))
