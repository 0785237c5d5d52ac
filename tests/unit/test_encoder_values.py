"""Values that PostgreSQL would never send, and the texts of some that it does."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("streams.encoder._native", reason="the native encoder was not built")

from streams.encoder import KINDS, EncodedColumn, Encoder, EncoderError, Plan
from tests.support.wire import copy_stream, sent_row
from tests.support.wire_values import MALFORMED, WELL_FORMED


def plans(kind: str) -> Sequence[Plan]:
    column = EncodedColumn("x", kind, guarded=True)
    return (
        Plan([column], "json"),
        Plan([column], "csv", delimiter=";"),
        Plan([column], "csv", guard=True, quote_all=True),
    )


@pytest.mark.parametrize(("kind", "data", "text"), WELL_FORMED)
def test_a_value_has_its_text(kind: str, data: bytes, text: str) -> None:
    encoder = Encoder(plans(kind)[0])
    encoder.feed_records([sent_row([data])])
    batch = encoder.take()
    assert batch is not None
    assert bytes(batch).decode() == f'{{"x":{text}}}'


@pytest.mark.parametrize(("kind", "data"), MALFORMED)
def test_a_malformed_value_is_an_error(kind: str, data: bytes) -> None:
    for plan in plans(kind):
        with pytest.raises(EncoderError, match="row 2, column 0: a malformed value"):
            Encoder(plan).feed_copy(copy_stream([[None], [data]]))
        with pytest.raises(EncoderError, match="row 1, column 0: a malformed value"):
            Encoder(plan).feed_records([sent_row([data])])


@pytest.mark.parametrize("kind", sorted({kind for kind, _, _ in WELL_FORMED} - {"json"}))
def test_a_value_of_another_size_is_an_error_unless_any_size_will_do(kind: str) -> None:
    data = next(data for known, data, _ in WELL_FORMED if known == kind)
    for wrong in (data[:-1], data + b"\0"):
        encoder = Encoder(plans(kind)[0])
        if kind in {"text", "bytea", "jsonb"}:
            encoder.feed_records([sent_row([wrong])])
            continue
        with pytest.raises(EncoderError, match="column 0: a "):
            encoder.feed_records([sent_row([wrong])])


@given(
    kind=st.sampled_from(sorted(KINDS)),
    values=st.lists(st.none() | st.binary(max_size=64), max_size=4),
    cuts=st.lists(st.integers(0, 300), max_size=4),
)
def test_whatever_is_fed_gives_records_or_an_error(
    kind: str, values: list[bytes | None], cuts: list[int]
) -> None:
    stream = copy_stream([[value] for value in values])
    ends = [*sorted(cuts), len(stream)]
    for plan in plans(kind):
        encoder = Encoder(plan)
        try:
            for begin, end in zip([0, *ends], ends, strict=False):
                encoder.feed_copy(stream[begin:end])
            encoder.end_copy()
            batch = encoder.take()
        except EncoderError:
            continue
        assert (batch.rows if batch else 0) == len(values)
