"""The encoder's ways with its input and its batches; its values are held against PostgreSQL."""

import gc
import struct
import sys
import threading
from functools import partial

import pytest

pytest.importorskip("streams.encoder._native", reason="the native encoder was not built")

from streams.encoder import Batch, EncodedColumn, Encoder, EncoderError, Plan
from tests.support.wire import END, HEAD, copied_row, copy_stream, int4, int8, sent_row

COLUMNS = (
    EncodedColumn("id", "int8"),
    EncodedColumn("name", "text", guarded=True),
    EncodedColumn(None, "int4"),
)
ROWS = [
    (int8(1), b"Anna", int4(7)),
    (int8(-2), None, int4(8)),
    (int8(3), b'=1,"\n', None),
    (int8(4), b"", int4(-9)),
]
RECORDS = [
    b'{"id":1,"name":"Anna"}',
    b'{"id":-2,"name":null}',
    b'{"id":3,"name":"=1,\\"\\n"}',
    b'{"id":4,"name":""}',
]
CSV_RECORDS = [b"1,Anna", b"-2,", b'3,"\'=1,""\n"', b'4,""']


def plan(form: str = "json", between: bytes = b"\n") -> Plan:
    return Plan(COLUMNS, "json" if form == "json" else "csv", between=between, keys=(2, 0))


def feed(encoder: Encoder, stream: bytes, size: int) -> None:
    """Feeds the stream in pieces of this size."""
    for at in range(0, len(stream), size):
        encoder.feed_copy(stream[at : at + size])


def taken(encoder: Encoder) -> Batch:
    batch = encoder.take()
    assert batch is not None
    return batch


def encoded(stream: bytes, encoder: Encoder) -> Batch:
    encoder.feed_copy(stream)
    encoder.end_copy()
    return taken(encoder)


@pytest.mark.parametrize(("form", "records"), [("json", RECORDS), ("csv", CSV_RECORDS)])
def test_both_sources_give_the_same_records(form: str, records: list[bytes]) -> None:
    copied = encoded(copy_stream(ROWS), Encoder(plan(form)))
    encoder = Encoder(plan(form))
    encoder.feed_records([sent_row(row) for row in ROWS])
    sent = taken(encoder)
    assert copied.records() == sent.records() == records
    assert copied.last == sent.last == ("-9", "4")


def test_a_batch_is_its_records_joined() -> None:
    batch = encoded(
        copy_stream(ROWS), Encoder(plan(between=b' & "much more than sixteen bytes" & '))
    )
    assert bytes(batch) == b' & "much more than sixteen bytes" & '.join(RECORDS)
    assert len(batch) == len(bytes(batch))
    assert memoryview(batch).readonly
    assert b"".join((b"[", batch, b"]")) == b"[" + bytes(batch) + b"]"
    assert batch.rows == len(ROWS)


def test_a_chunk_may_end_anywhere() -> None:
    stream = copy_stream(ROWS)
    for first in range(len(stream) + 1):
        for second in range(first, len(stream) + 1, 7):
            encoder = Encoder(plan())
            for piece in (stream[:first], stream[first:second], stream[second:]):
                encoder.feed_copy(piece)
            encoder.end_copy()
            assert taken(encoder).records() == RECORDS, (first, second)


def test_a_chunk_may_be_a_byte() -> None:
    encoder = Encoder(plan())
    for byte in copy_stream(ROWS):
        assert not encoder.ended
        encoder.feed_copy(bytes([byte]))
    assert encoder.ended
    encoder.end_copy()
    assert not encoder.ended  # for another may follow
    assert taken(encoder).records() == RECORDS


def test_a_row_may_be_much_larger_than_a_chunk() -> None:
    text = bytes(range(32, 127)) * 100_000
    stream = copy_stream([(int8(1), text, None), (int8(2), b"x", int4(0))])
    encoder = Encoder(Plan(COLUMNS, "csv", keys=(0,)))
    for at in range(0, len(stream), 10_000):
        encoder.feed_copy(stream[at : at + 10_000])
        assert encoder.rows == (at + 10_000 > len(text) + len(HEAD)) + (at + 10_000 >= len(stream))
    encoder.end_copy()
    assert taken(encoder).records() == [b'1,"' + text.replace(b'"', b'""') + b'"', b"2,x"]


def test_any_buffer_can_be_fed() -> None:
    stream = copy_stream(ROWS)
    for chunk in (bytearray(stream), memoryview(stream)):
        encoder = Encoder(plan())
        encoder.feed_copy(chunk)
        assert taken(encoder).records() == RECORDS
    with pytest.raises(TypeError):
        Encoder(plan()).feed_copy("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Encoder(plan()).feed_records([bytearray(sent_row(ROWS[0]))])  # type: ignore[list-item]


def test_a_head_may_have_an_extension() -> None:
    extended = HEAD[:-4] + int4(10) + bytes(10)
    encoder = Encoder(plan())
    for byte in extended + copy_stream(ROWS)[len(HEAD) :]:
        encoder.feed_copy(bytes([byte]))
    assert taken(encoder).records() == RECORDS


def test_one_stream_may_follow_another() -> None:
    encoder = Encoder(plan())
    for half in (ROWS[:2], [], ROWS[2:]):
        encoder.feed_copy(copy_stream(half))
        encoder.end_copy()
    batch = taken(encoder)
    assert bytes(batch) == b"\n".join(RECORDS)
    assert encoder.take() is None


def test_a_batch_is_what_came_since_the_last_one() -> None:
    encoder, stream = Encoder(plan()), copy_stream(ROWS)
    cut = len(HEAD) + sum(len(copied_row(row)) for row in ROWS[:3]) + 5
    encoder.feed_copy(stream[:cut])
    assert (encoder.rows, encoder.size) == (3, len(b"\n".join(RECORDS[:3])))
    first = taken(encoder)
    assert (encoder.rows, encoder.size) == (0, 0)
    encoder.feed_copy(stream[cut:])
    second = taken(encoder)
    del encoder
    assert (first.records(), first.last) == (RECORDS[:3], (None, "3"))
    assert (second.records(), second.last) == (RECORDS[3:], ("-9", "4"))


@pytest.mark.parametrize("limit", range(6))
def test_no_more_records_than_the_limit_come_of_it(limit: int) -> None:
    encoder = Encoder(plan(), limit)
    encoder.feed_copy(copy_stream(ROWS[:1]))
    encoder.end_copy()
    first = encoder.take()
    encoder.feed_copy(copy_stream(ROWS[1:]))
    encoder.end_copy()
    second = encoder.take()
    batches = [batch for batch in (first, second) if batch is not None]
    assert [r for batch in batches for r in batch.records()] == RECORDS[:limit]
    assert encoder.more == (limit < len(ROWS))
    if limit == 3:
        assert batches[-1].last == (None, "3")


def test_a_record_of_csv_may_be_empty() -> None:
    encoder = Encoder(Plan([EncodedColumn("a", "text")], "csv", between=b"\r\n"))
    encoder.feed_records([sent_row([None]), sent_row([None])])
    batch = taken(encoder)
    assert (batch.records(), bytes(batch)) == ([b"", b""], b"\r\n")


def test_a_batch_of_no_bytes_is_still_a_batch() -> None:
    encoder = Encoder(Plan([EncodedColumn("a", "text")], "csv"))
    encoder.feed_records([sent_row([None])])
    batch = taken(encoder)
    assert (bytes(batch), len(batch), bool(batch)) == (b"", 0, True)


def test_a_name_is_escaped_once() -> None:
    names = ['say "hi"', "a\\b", "Größe 📏", "", "tab\t\x01"]
    encoder = Encoder(Plan([EncodedColumn(name, "int4") for name in names], "json"))
    encoder.feed_records([sent_row([int4(n) for n in range(5)])])
    expected = '{"say \\"hi\\"":0,"a\\\\b":1,"Größe 📏":2,"":3,"tab\\t\\u0001":4}'
    assert bytes(taken(encoder)).decode() == expected


@pytest.mark.parametrize(
    ("columns", "more", "why"),
    [
        ([EncodedColumn("a", "int5")], {}, "column 0: there is no kind"),
        ([EncodedColumn("a", "int4"), EncodedColumn("b", "[]")], {}, "column 1: there is no kind"),
        ([EncodedColumn("a", "int4[][]")], {}, "there is no kind"),
        ([EncodedColumn("a", "")], {}, "there is no kind"),
        ([EncodedColumn("a", "int4")], {"keys": [1]}, "no column of this index"),
        ([EncodedColumn("a", "int4")], {"keys": [-1]}, "no column of this index"),
        ([EncodedColumn("a", "json")], {"keys": [0]}, "can't be part of a key"),
        ([EncodedColumn("a", "int4[]")], {"keys": [0]}, "can't be part of a key"),
        ([EncodedColumn("a", "int4")], {"delimiter": '"'}, "delimiter"),
        ([EncodedColumn("a", "int4")], {"delimiter": "\n"}, "delimiter"),
        ([EncodedColumn("a", "int4")], {"delimiter": ""}, "delimiter"),
        ([EncodedColumn("a", "int4")], {"delimiter": ";;"}, "delimiter"),
        ([EncodedColumn("a", "int4")], {"delimiter": "é"}, "delimiter"),
        ([EncodedColumn("\ud800", "int4")], {}, "surrogates"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(
    columns: list[EncodedColumn], more: dict[str, object], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        Plan(columns, "csv", **more)  # type: ignore[arg-type]


def test_other_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="json or csv"):
        Plan(COLUMNS, "xml")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Plan([("a", "int4")], "json")  # type: ignore[list-item]
    with pytest.raises(TypeError):
        Plan([EncodedColumn("a", 4)], "json")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Plan(7, "json")  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        Encoder(plan(), -1)
    with pytest.raises(TypeError):
        Batch()
    with pytest.raises(TypeError):
        Encoder("plan")  # type: ignore[arg-type]


STREAM = copy_stream(ROWS)


def row(*values: bytes | None) -> bytes:
    return HEAD + copied_row(values)


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (b"PGCOPY\n\xff\r\n\1" + bytes(8), "row 1: another signature"),
        (b"X", "another signature"),
        (HEAD[:11] + b"\0\1\0\0" + bytes(4) + STREAM[19:], "a form of COPY"),
        (HEAD[:-4] + int4(-1), "a negative length"),
        (row(int8(1), b"a"), "row 1: another number of columns"),
        (STREAM[:-2] + copied_row([b""] * 4), "row 5: another number of columns"),
        (HEAD + b"\xff\xfe", "another number of columns"),
        (row(int8(1), b"a", b"123"), "row 1, column 2: a length that its type can't have"),
        (HEAD + b"\0\3" + int4(-2), "row 1, column 0: a negative length"),
        (HEAD + b"\0\3" + int4(8) + bytes(8) + int4(2**31 - 1), "a length that no row can have"),
        (STREAM + b"\0", "row 5: bytes behind the end"),
        (STREAM + STREAM, "bytes behind the end"),
    ],
)
def test_what_is_no_stream_of_the_plan_is_an_error(stream: bytes, why: str) -> None:
    for size in (len(stream), 1, 5):
        encoder = Encoder(plan())
        with pytest.raises(EncoderError, match=why):
            feed(encoder, stream, size)
        for call in (encoder.end_copy, encoder.take, partial(encoder.feed_copy, b"")):
            with pytest.raises(EncoderError, match=why):
                call()


def test_a_stream_that_was_cut_is_an_error() -> None:
    for size in range(len(STREAM)):
        encoder = Encoder(plan())
        encoder.feed_copy(STREAM[:size])
        with pytest.raises(EncoderError, match="an end too early"):
            encoder.end_copy()


def test_a_row_of_record_send_must_be_whole() -> None:
    whole = sent_row(ROWS[0])
    for wrong in (*(whole[:size] for size in range(len(whole))), whole + b"\0", sent_row([b"a"])):
        encoder = Encoder(plan())
        encoder.feed_records([whole])
        with pytest.raises(EncoderError, match="row 2"):
            encoder.feed_records([wrong])
        with pytest.raises(EncoderError, match="row 2"):
            encoder.feed_records([whole])


def test_an_error_shows_nothing_of_the_data() -> None:
    encoder = Encoder(plan())
    with pytest.raises(EncoderError) as caught:
        encoder.feed_records([sent_row([b"secret", b"secret", b"secret"])])
    assert "secret" not in str(caught.value)


def test_a_key_is_text() -> None:
    encoder = Encoder(Plan([EncodedColumn("a", "text")], "json", keys=(0,)))
    encoder.feed_records([sent_row([b"\xff"])])
    with pytest.raises(EncoderError, match="UTF-8"):
        encoder.take()


def test_other_threads_run_meanwhile_and_must_keep_away() -> None:
    stream = copy_stream([(int8(1), b"x" * 2_000_000, None)] * 40)
    refused: list[str] = []
    for _ in range(20):
        encoder = Encoder(plan())
        feeder = threading.Thread(target=encoder.feed_copy, args=(stream,))
        feeder.start()
        while feeder.is_alive():
            try:
                encoder.take()
            except RuntimeError as error:
                refused.append(str(error))
        feeder.join()
        if refused:
            break
    assert set(refused) == {"the encoder is at work in another thread"}


def test_nothing_is_held_on_to() -> None:
    chunk, row, columns = copy_stream(ROWS), sent_row(ROWS[0]), plan()
    gc.collect()
    held = [sys.getrefcount(thing) for thing in (chunk, row, columns, Encoder, Batch, Plan)]
    for _ in range(100):
        encoder = Encoder(columns)
        encoder.feed_copy(chunk)
        encoder.feed_records([row])
        taken(encoder).records()
        with pytest.raises(EncoderError):
            encoder.feed_copy(chunk)
        with pytest.raises(ValueError, match="no kind"):
            Plan([EncodedColumn("a", "none")], "json")
    del encoder
    gc.collect()
    now = [sys.getrefcount(thing) for thing in (chunk, row, columns, Encoder, Batch, Plan)]
    assert now == held


def test_a_null_key_is_an_error() -> None:
    encoder = Encoder(
        Plan([EncodedColumn("a", "float8"), EncodedColumn("b", "text")], "json", keys=(0, 1))
    )
    encoder.feed_records([sent_row([struct.pack(">d", 1e300), None])])
    assert taken(encoder).last == ("1e+300", None)


def test_an_end_alone_is_a_stream_without_rows() -> None:
    encoder = Encoder(plan())
    encoder.feed_copy(HEAD + END)
    encoder.end_copy()
    assert encoder.take() is None
