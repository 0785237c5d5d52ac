"""Compressors: the whole comes back, and nothing that was put in is held back."""

import zlib
from collections.abc import Callable

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from streams.compression import CODINGS, Compressor

Decompress = Callable[[bytes], bytes]


def _gunzip() -> Decompress:
    return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress


def _unzstd() -> Decompress:
    return zstd.ZstdDecompressor().decompress


def _as_it_is() -> Decompress:
    return bytes


def compressed(compressor: Compressor, *chunk: bytes) -> bytes:
    return b"".join(compressor.compress(chunk))


READERS = {"gzip": _gunzip, "zstd": _unzstd, "identity": _as_it_is}
# Chunks that compress well, that don't compress at all, and that are empty.
CHUNKS = st.lists(
    st.binary(max_size=2_000)
    | st.builds(bytes.__mul__, st.binary(max_size=3), st.sampled_from([7, 4_000, 70_000])),
    max_size=6,
)


def test_there_is_a_reader_for_every_coding() -> None:
    assert set(READERS) == set(CODINGS)


@pytest.mark.parametrize("coding", CODINGS)
@given(chunks=CHUNKS)
def test_a_reader_has_each_chunk_as_soon_as_it_was_compressed(
    coding: str, chunks: list[bytes]
) -> None:
    compressor, read = CODINGS[coding](), READERS[coding]()
    for chunk in chunks:
        assert read(compressed(compressor, chunk[:7], chunk[7:])) == chunk
    assert read(compressor.finish()) == b""


@pytest.mark.parametrize("coding", CODINGS)
@given(chunks=CHUNKS)
def test_the_whole_body_comes_back(coding: str, chunks: list[bytes]) -> None:
    compressor = CODINGS[coding]()
    body = b"".join(compressed(compressor, chunk) for chunk in chunks) + compressor.finish()
    assert READERS[coding]()(body) == b"".join(chunks)


def test_a_gzip_body_has_an_end_exactly_when_it_was_finished() -> None:
    compressor, reader = CODINGS["gzip"](), zlib.decompressobj(zlib.MAX_WBITS | 16)
    reader.decompress(compressed(compressor, b"row"))
    assert not reader.eof
    reader.decompress(compressor.finish())
    assert reader.eof


def test_a_zstd_body_has_an_end_exactly_when_it_was_finished() -> None:
    compressor, reader = CODINGS["zstd"](), zstd.ZstdDecompressor()
    reader.decompress(compressed(compressor, b"row"))
    assert not reader.eof
    reader.decompress(compressor.finish())
    assert reader.eof


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_body_like_a_feeds_becomes_much_smaller(coding: str) -> None:
    chunk = b"".join(b'{"id":%d,"status":"booked","currency":"EUR"}\n' % n for n in range(2_000))
    compressor = CODINGS[coding]()
    assert len(compressed(compressor, chunk) + compressor.finish()) < len(chunk) / 4
