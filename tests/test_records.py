"""The inner records: they come back as they were; what is damaged or newer is refused, never misread."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import UnreadableState
from contract.records import (
    VERSION,
    ArticleRecord,
    ArticleStats,
    CoReads,
    PartitionTotals,
    UserRecord,
    Windows,
    decode_article,
    decode_co_reads,
    decode_stats,
    decode_totals,
    decode_user,
    encode_article,
    encode_plain,
    encode_user,
)
from tests.contract_strategies import article_records, co_reads, stats, totals, user_records

Decoder = Callable[[bytes], object]
DECODERS: list[Decoder] = [decode_article, decode_user, decode_totals, decode_stats, decode_co_reads]
VERSION_AT = 2


@given(article_records)
def test_an_article_comes_back_as_it_was_written(record: ArticleRecord) -> None:
    assert_same(decode_article(encode_article(record)), record)


@given(user_records)
def test_a_user_comes_back_as_it_was_written(record: UserRecord) -> None:
    assert_same(decode_user(encode_user(record)), record)


@given(totals)
def test_totals_come_back_as_they_were_written(record: PartitionTotals) -> None:
    assert decode_totals(encode_plain(record)) == record


@given(stats)
def test_statistics_come_back_as_they_were_written(record: ArticleStats) -> None:
    assert decode_stats(encode_plain(record)) == record


@given(co_reads)
def test_co_reads_come_back_as_they_were_written(record: CoReads) -> None:
    assert decode_co_reads(encode_plain(record)) == record


def test_co_reads_without_a_weight_for_each_article_are_refused() -> None:
    for articles, weights in ((b"12345678", b""), (b"1234", b"1234")):
        with pytest.raises(UnreadableState, match="co-reads"):
            decode_co_reads(encode_plain(CoReads(1, articles, weights)))


def test_the_head_is_what_every_version_will_find() -> None:
    """Written by hand: little-endian, the magic, the version, the width, then times; the vector begins at byte 32."""
    head = struct.pack("<2sBBHHqqq", b"AV", 1, 0, 2, 0, 1_750_000_000_000, 0, 1_750_000_000_001)
    value = head + struct.pack("<2f", 1.0, -0.5) + msgspec.msgpack.encode({"category": "sport"})
    record = decode_article(value)
    assert record.vector.tolist() == [1.0, -0.5]
    assert (record.published_at, record.expires_at, record.cause_at) == (1_750_000_000_000, 0, 1_750_000_000_001)
    assert (record.meta.category, record.meta.tags, record.meta.placement) == ("sport", [], "auto")


@given(user_records, st.data())
def test_a_user_cut_anywhere_is_refused(record: UserRecord, data: st.DataObject) -> None:
    value = encode_user(record)
    with pytest.raises(UnreadableState):
        decode_user(value[: data.draw(st.integers(0, len(value) - 1))])


@given(article_records, st.data())
def test_an_article_cut_anywhere_is_refused(record: ArticleRecord, data: st.DataObject) -> None:
    value = encode_article(record)
    with pytest.raises(UnreadableState):
        decode_article(value[: data.draw(st.integers(0, len(value) - 1))])


@given(user_records)
def test_something_after_the_record_is_refused(record: UserRecord) -> None:
    with pytest.raises(UnreadableState):
        decode_user(encode_user(record) + b"\x00")


@pytest.mark.parametrize("decode", DECODERS)
@given(value=st.binary(max_size=200))
def test_whatever_stands_there_is_read_or_refused(decode: Decoder, value: bytes) -> None:
    assert_read_or_refused(decode, value)


@given(user_records, st.data())
def test_a_user_damaged_anywhere_is_read_or_refused(record: UserRecord, data: st.DataObject) -> None:
    value = bytearray(encode_user(record))
    value[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(1, 255))
    assert_read_or_refused(decode_user, bytes(value))


@given(article_records, st.data())
def test_an_article_damaged_anywhere_is_read_or_refused(record: ArticleRecord, data: st.DataObject) -> None:
    value = bytearray(encode_article(record))
    value[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(1, 255))
    assert_read_or_refused(decode_article, bytes(value))


@given(user_records)
def test_a_user_is_no_article(record: UserRecord) -> None:
    with pytest.raises(UnreadableState, match="not a AV record"):
        decode_article(encode_user(record))


@given(article_records)
def test_a_record_of_a_newer_version_is_refused(record: ArticleRecord) -> None:
    value = bytearray(encode_article(record))
    value[VERSION_AT] = VERSION + 1
    with pytest.raises(UnreadableState, match=f"version {VERSION + 1}, .* up to {VERSION}; start the newer"):
        decode_article(bytes(value))


@pytest.mark.parametrize(
    ("decode", "record"),
    [
        (decode_totals, PartitionTotals(version=VERSION + 1)),
        (decode_stats, ArticleStats(at=1, impressions=1, clicks=1, version=VERSION + 1)),
        (decode_co_reads, CoReads(at=1, articles=b"", weights=b"", version=VERSION + 1)),
    ],
)
def test_newer_totals_and_statistics_are_refused(
    decode: Decoder, record: PartitionTotals | ArticleStats | CoReads
) -> None:
    with pytest.raises(UnreadableState, match="start the newer version"):
        decode(encode_plain(record))


def test_fields_of_a_later_day_are_ignored_and_missing_ones_have_defaults() -> None:
    assert decode_totals(msgspec.msgpack.encode({"read": 7, "later": [1]})) == PartitionTotals(read=7)
    later = {"at": 5, "impressions": 2.0, "clicks": 1.0, "later": {"x": 1}}
    assert decode_stats(msgspec.msgpack.encode(later)) == ArticleStats(5, 2.0, 1.0)


def test_a_user_whose_windows_are_no_whole_hashes_is_refused() -> None:
    whole = encode_user(example())
    for bad in (
        {"read": b"1234567"}, {"read": b"12345678", "read_kinds": b"12"}, {"shown": b"12345678"}, {"seen": b"123"},
        {"recents": b"x" * 19}, {"affinities": b"12345678"},
    ):  # fmt: skip
        with pytest.raises(UnreadableState, match="windows"):
            decode_user(whole[: -len(msgspec.msgpack.encode(Windows()))] + msgspec.msgpack.encode(bad))


def example() -> UserRecord:
    """A user without anything in the windows."""
    head = struct.pack("<2sBBHHqQQqq", b"UV", VERSION, 0, 1, 0, 0, 0, 0, 0, 0)
    return decode_user(head + struct.pack("<f", 1.0) + msgspec.msgpack.encode({}))


def assert_read_or_refused(decode: Decoder, value: bytes) -> None:
    try:
        read = decode(value)
    except UnreadableState:
        return
    assert read is not None


def assert_same(found: msgspec.Struct, wanted: msgspec.Struct) -> None:
    """Field by field; arrays bit by bit, since a float may be no number."""
    assert type(found) is type(wanted)
    for name in wanted.__struct_fields__:
        one, other = getattr(found, name), getattr(wanted, name)
        assert _bits(one) == _bits(other), name


def _bits(value: Any) -> Any:
    return value.astype("<f4").tobytes() if isinstance(value, np.ndarray) else value
