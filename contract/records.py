"""The records of the inner topics: a fixed binary head, float32 numbers, and MessagePack.

    article-vectors.G   head (magic, version, d, times), d float32, map of metadata
    user-vectors.G      head (magic, version, S, proof, times), S float32, map of windows;
                        under ``~partition``: the partition's totals
    article-stats.G     map of decayed counts

New fields get defaults, unknown ones are ignored; a higher version is refused with
:class:`~contract.errors.UnreadableState`, since an older reader would drop what it can't know.
All numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from contract.errors import UnreadableState
from contract.messages import Cause, Placement

VERSION = 1
PARTITION_KEY = b"~partition"

_ARTICLE_HEAD = struct.Struct("<2sBxHxxqqq")
_USER_HEAD = struct.Struct("<2sBxHxxqQQqq")


class ArticleMeta(msgspec.Struct, frozen=True, omit_defaults=True):
    """What ranking needs to know of an article beside its vector, and the articles worker to go on from there.

    ``offset`` is the record of ``articles`` that all of this is of (-1: not known). ``text_hash`` is
    the 64-bit hash of the text that the vector is of: an older one while a new text still waits.
    """

    category: str = ""
    tags: list[str] = []
    entities: list[str] = []
    authors: list[str] = []
    source: str = ""
    language: str = ""
    placement: Placement = "auto"
    offset: int = -1
    text_hash: int = 0


class ArticleRecord(msgspec.Struct, frozen=True):
    """An article's vector (float32 [d], unit length); times in epoch ms.

    ``expires_at`` 0 means never; ``cause_at`` is the Kafka timestamp of the article's own record.
    """

    vector: NDArray[np.float32]
    published_at: int
    expires_at: int
    cause_at: int
    meta: ArticleMeta


class Waiting(msgspec.Struct, frozen=True, array_like=True):
    """An event on an article without a vector, as it came; ``timestamp`` is its record's."""

    article_id: str
    offset: int
    timestamp: int
    value: bytes


class Windows(msgspec.Struct, omit_defaults=True):
    """The bounded rest of a user's state, oldest first; ids as 64-bit hashes, uint64 bytes.

    ``shown`` and ``shown_counts`` (uint8) go together. ``cause`` is the oldest event since the
    record before that asks for a ranking.
    """

    read: bytes = b""
    seen: bytes = b""
    shown: bytes = b""
    shown_counts: bytes = b""
    waiting: list[Waiting] = []
    cause: Cause | None = None


class UserRecord(msgspec.Struct, frozen=True):
    """A user's state: float32 [S] as of event time ``at``.

    ``last_offset`` is the last record taken into it, ``folded`` and ``hash_sum`` the count and the
    64-bit sum of hash(partition, offset) of the events folded since it began, ``timestamp`` the
    Kafka timestamp of its last record.
    """

    vector: NDArray[np.float32]
    last_offset: int
    folded: int
    hash_sum: int
    at: int
    timestamp: int
    windows: Windows


class PartitionTotals(msgspec.Struct, omit_defaults=True):
    """What became of all records read from one partition of ``user-events``.

    read = folded + waiting + duplicate + dead; ``hash_sum`` is over the folded.
    """

    read: int = 0
    folded: int = 0
    waiting: int = 0
    duplicate: int = 0
    dead: int = 0
    hash_sum: int = 0
    timestamp: int = 0
    version: int = VERSION


class ArticleStats(msgspec.Struct, frozen=True, omit_defaults=True):
    """Impressions and clicks of one article in one partition, decayed to event time ``at``."""

    at: int
    impressions: float
    clicks: float
    version: int = VERSION


Record = TypeVar("Record", ArticleMeta, Windows, PartitionTotals, ArticleStats)

_pack = msgspec.msgpack.Encoder().encode
_unpack_meta = msgspec.msgpack.Decoder(ArticleMeta).decode
_unpack_windows = msgspec.msgpack.Decoder(Windows).decode
_unpack_totals = msgspec.msgpack.Decoder(PartitionTotals).decode
_unpack_stats = msgspec.msgpack.Decoder(ArticleStats).decode


def encode_article(record: ArticleRecord) -> bytes:
    """Return the value for ``article-vectors.G``."""
    head = _ARTICLE_HEAD.pack(
        b"AV", VERSION, len(record.vector), record.published_at, record.expires_at, record.cause_at
    )
    return head + record.vector.astype("<f4", copy=False).tobytes() + _pack(record.meta)


def decode_article(value: bytes) -> ArticleRecord:
    """Inverse of :func:`encode_article`. Raises :class:`UnreadableState`."""
    vector, (published_at, expires_at, cause_at), rest = _open(_ARTICLE_HEAD, b"AV", value)
    return ArticleRecord(vector, published_at, expires_at, cause_at, _unpacked(_unpack_meta, rest))


def encode_user(record: UserRecord) -> bytes:
    """Return the value for ``user-vectors.G``."""
    head = _USER_HEAD.pack(
        b"UV", VERSION, len(record.vector),
        record.last_offset, record.folded, record.hash_sum, record.at, record.timestamp,
    )  # fmt: skip
    return head + record.vector.astype("<f4", copy=False).tobytes() + _pack(record.windows)


def decode_user(value: bytes) -> UserRecord:
    """Inverse of :func:`encode_user`. Raises :class:`UnreadableState`."""
    vector, (last_offset, folded, hash_sum, at, timestamp), rest = _open(_USER_HEAD, b"UV", value)
    windows = _unpacked(_unpack_windows, rest)
    hashes = (windows.read, windows.seen, windows.shown)
    if any(len(window) % 8 for window in hashes) or len(windows.shown) != 8 * len(windows.shown_counts):
        raise UnreadableState("a UV record has windows that are no 64-bit hashes, or not one count for each shown")
    return UserRecord(vector, last_offset, folded, hash_sum, at, timestamp, windows)


def encode_plain(record: PartitionTotals | ArticleStats) -> bytes:
    """Return the value for a record without a vector."""
    return _pack(record)


def decode_totals(value: bytes) -> PartitionTotals:
    """Return a partition's totals. Raises :class:`UnreadableState`."""
    totals = _unpacked(_unpack_totals, value)
    _check_version(totals.version)
    return totals


def decode_stats(value: bytes) -> ArticleStats:
    """Return an article's statistics. Raises :class:`UnreadableState`."""
    stats = _unpacked(_unpack_stats, value)
    _check_version(stats.version)
    return stats


def _unpacked(unpack: Callable[[bytes], Record], value: bytes) -> Record:
    try:
        return unpack(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableState(f"a state record is damaged: {error}") from None


def _open(head: struct.Struct, magic: bytes, value: bytes) -> tuple[NDArray[np.float32], tuple[int, ...], bytes]:
    if len(value) < head.size or value[:2] != magic:
        raise UnreadableState(f"not a {magic.decode()} record: {value[:16]!r}")
    _, version, size, *numbers = head.unpack_from(value)
    _check_version(version)
    end = head.size + 4 * size
    if len(value) <= end:
        raise UnreadableState(f"a {magic.decode()} record of {len(value)} bytes is cut short")
    return np.frombuffer(value, "<f4", size, head.size), tuple(numbers), value[end:]


def _check_version(version: int) -> None:
    if version > VERSION:
        raise UnreadableState(
            f"the record has version {version}, this program reads up to {VERSION}; start the newer version"
        )
