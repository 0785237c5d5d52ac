"""The four formats: whole bodies read back, broken-off ones never look whole."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import tokens
from streams.csv_record import CsvStyle
from streams.formats import CSV, FORMATS, JSON, NDJSON, SSE, Encoder, Format, Layout
from streams.frames import End, Failure, Frame, Open, Ping, Progress, Rows
from tests.support import sse

COLUMNS = ("id", "note")
PLAIN, FRAMED = Layout(COLUMNS), Layout(COLUMNS, frames=True)
OPEN = Open("export", "clients", COLUMNS, 3, "estimate", None)
END = End(3, 12, "3", more=False, snapshots=1, export="export")
FAILURE = Failure({"type": "/problems/timeout", "status": 504}, "2")
PROGRESS = Progress(2, 3, "estimate", 500, "2")

VALUES = st.text() | st.integers() | st.none()
ROWS = st.lists(st.dictionaries(st.text(), VALUES, max_size=3), min_size=1, max_size=4)
BATCHES = st.lists(ROWS, max_size=3)


def record(row: object) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()


def rows(form: Format, *batch: object, layout: Layout = PLAIN, last: str = "7") -> Rows:
    return Rows(form.between(layout).join(map(record, batch)), len(batch), last)


def body(encoder: Encoder, frames: Iterable[Frame]) -> bytes:
    return b"".join(piece for frame in frames for piece in encoder.encode(frame))


def flattened(batches: list[list[Any]]) -> list[Any]:
    return [row for batch in batches for row in batch]


@given(BATCHES)
def test_json_is_one_array_of_all_rows(batches: list[list[Any]]) -> None:
    made = body(JSON.encoder(PLAIN), [OPEN, *(rows(JSON, *batch) for batch in batches), END])
    assert json.loads(made) == flattened(batches)


@given(BATCHES)
def test_json_without_its_end_is_no_json(batches: list[list[Any]]) -> None:
    made = body(JSON.encoder(PLAIN), [OPEN, *(rows(JSON, *batch) for batch in batches), FAILURE])
    with pytest.raises(json.JSONDecodeError):
        json.loads(made)


@given(BATCHES)
def test_ndjson_has_one_row_a_line(batches: list[list[Any]]) -> None:
    made = body(NDJSON.encoder(PLAIN), [OPEN, *(rows(NDJSON, *batch) for batch in batches), END])
    lines = made.split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == flattened(batches)


def test_plain_ndjson_shows_nothing_but_rows() -> None:
    frames: list[Frame] = [OPEN, PROGRESS, rows(NDJSON, {"id": 1}), Ping(), FAILURE]
    assert body(NDJSON.encoder(PLAIN), frames) == b'{"id": 1}\n'


def test_framed_ndjson_has_one_key_a_line_that_says_what_it_is() -> None:
    first = rows(NDJSON, {"id": 1}, {"id": 2}, layout=FRAMED)
    second = rows(NDJSON, {"id": 3}, layout=FRAMED)
    frames: list[Frame] = [OPEN, first, PROGRESS, second, Ping(), END]
    lines = [json.loads(line) for line in body(NDJSON.encoder(FRAMED), frames).splitlines()]
    assert [list(line) for line in lines] == [["row"], ["row"], ["progress"], ["row"], ["end"]]
    assert [line["row"]["id"] for line in lines if "row" in line] == [1, 2, 3]


@pytest.mark.parametrize(("form", "layout"), [(SSE, PLAIN), (NDJSON, FRAMED)])
def test_a_failure_frame_is_the_problem_with_the_token_to_go_on_from(
    form: Format, layout: Layout
) -> None:
    made = body(form.encoder(layout), [FAILURE])
    shown = (
        json.loads(made)["error"] if form is NDJSON else json.loads(sse.parse(made).events[0].data)
    )
    assert shown == {"type": "/problems/timeout", "status": 504, "after": "2"}


def test_progress_and_end_have_what_the_contract_lists() -> None:
    encoder = NDJSON.encoder(FRAMED)
    before = body(encoder, [rows(NDJSON, {"id": 1})])
    assert json.loads(body(encoder, [PROGRESS]))["progress"] == {
        "rows": 2,
        "bytes": len(before),
        "total": 3,
        "total_kind": "estimate",
        "elapsed_ms": 500,
        "rows_per_s": 4,
        "after": "2",
    }
    so_far = encoder.bytes_made
    assert json.loads(body(encoder, [END]))["end"] == {
        "rows": 3,
        "bytes": so_far,
        "elapsed_ms": 12,
        "after": "3",
        "more": False,
        "snapshots": 1,
        "cursor": None,
        "export": "export",
    }


def test_progress_in_the_first_millisecond_has_a_rate_all_the_same() -> None:
    made = body(NDJSON.encoder(FRAMED), [Progress(2, None, "estimate", 0, "2")])
    assert json.loads(made)["progress"]["rows_per_s"] == 0


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("layout", [PLAIN, FRAMED])
def test_the_bytes_made_are_counted(name: str, layout: Layout) -> None:
    form = FORMATS[name]
    encoder = form.encoder(layout)
    first, second = rows(form, {"id": 1}), rows(form, {"id": 2})
    frames: list[Frame] = [OPEN, first, PROGRESS, Ping(), second, END]
    whole = body(encoder, frames)
    assert encoder.bytes_made == len(whole) > 0


@pytest.mark.parametrize(
    ("layout", "head"),
    [
        (PLAIN, b"id,note\r\n"),
        (Layout(COLUMNS, header=False), b""),
        (Layout(COLUMNS, bom=True), b"\xef\xbb\xbfid,note\r\n"),
        (Layout(COLUMNS, bom=True, header=False), b"\xef\xbb\xbf"),
        (Layout(COLUMNS, csv=CsvStyle(";")), b"id;note\r\n"),
        (Layout(COLUMNS, csv=CsvStyle("\t")), b"id\tnote\r\n"),
        (Layout(("a,b", 'c"d', "")), b'"a,b","c""d",""\r\n'),
        (Layout(("a,b", "c;d"), csv=CsvStyle(";")), b'a,b;"c;d"\r\n'),
        (Layout(("=a", "b;=c"), csv=CsvStyle(guard=True)), b'\'=a,"b;=c"\r\n'),
        (Layout(("=a", "b;=c")), b"=a,b;=c\r\n"),
    ],
)
@pytest.mark.parametrize("opened", [[OPEN], []])
@pytest.mark.parametrize("records", [[], [b"1,x"], [b"1,x", b"2,y"]])
def test_a_csv_body_has_its_head_once_and_crlf_behind_every_record(
    layout: Layout, head: bytes, opened: list[Frame], records: list[bytes]
) -> None:
    frames: list[Frame] = [*opened, *(Rows(r, 1, "1") for r in records), PROGRESS, END]
    assert body(CSV.encoder(layout), frames) == head + b"".join(r + b"\r\n" for r in records)


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {SSE.name}))
@pytest.mark.parametrize("layout", [PLAIN, FRAMED])
@given(BATCHES)
def test_how_rows_are_cut_into_frames_does_not_show(
    name: str, layout: Layout, batches: list[list[Any]]
) -> None:
    form = FORMATS[name]
    one = [rows(form, *flattened(batches), layout=layout)] if batches else []
    each = [rows(form, row, layout=layout) for row in flattened(batches)]
    assert body(form.encoder(layout), [OPEN, *one]) == body(form.encoder(layout), [OPEN, *each])


@given(BATCHES, st.lists(st.text(), min_size=1, max_size=3), st.text())
def test_nothing_in_the_data_breaks_or_forges_an_event(
    batches: list[list[Any]], key: list[str], word: str
) -> None:
    token = tokens.encode(key)
    started = Open(word, word, (word,), None, "estimate", token)
    frames: list[Frame] = [started, *(rows(SSE, *batch, last=token) for batch in batches)]
    frames += [Progress(1, 1, "exact", 1, token), Failure({"detail": word, word: 1}, token, 250)]
    stream = sse.parse(body(SSE.encoder(Layout((word,))), frames))
    kinds = [event.type for event in stream.events]
    assert kinds == ["open", *["rows"] * len(batches), "progress", "error"]
    assert [json.loads(event.data) for event in stream.of_type("rows")] == batches
    assert all(event.last_id == token for event in stream.of_type("rows"))
    assert json.loads(stream.events[0].data)["dataset"] == word
    assert json.loads(stream.events[-1].data)["detail"] == word
    assert stream.retry == 250


def test_sse_ends_with_an_event_whose_id_stops_a_reconnect() -> None:
    stream = sse.parse(body(SSE.encoder(PLAIN), [OPEN, rows(SSE, {"id": 1}), Ping(), END]))
    assert [(event.type, event.last_id) for event in stream.events] == [
        ("open", ""),
        ("rows", "7"),
        ("end", "end"),
    ]
    assert stream.comments == ["ping"]
    assert stream.retry is None


def test_a_row_whose_key_is_the_word_end_is_not_taken_for_the_end() -> None:
    row = rows(SSE, {"id": "end"}, last=tokens.encode(["end"]))
    stream = sse.parse(body(SSE.encoder(PLAIN), [row]))
    (event,) = stream.events
    assert event.last_id != "end"
    assert tokens.decode(event.last_id) == ("end",)


@given(BATCHES, st.data())
def test_an_event_stream_cut_anywhere_shows_whole_events_alone(
    batches: list[list[Any]], data: st.DataObject
) -> None:
    frames: list[Frame] = [OPEN, *(rows(SSE, *batch) for batch in batches), END]
    whole = body(SSE.encoder(PLAIN), frames)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    assert sse.parse(cut).events == sse.parse(whole).events[: len(sse.parse(cut).events)]
