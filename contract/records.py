"""The records of the inner topics: a fixed binary head, float32 numbers, and MessagePack.

    article-vectors.G   head (magic, version, d, times), d float32, map of metadata
    user-vectors.G      head (magic, version, S, proof, times), S float32, map of windows;
                        under ``~partition``: the partition's totals
    article-stats.G     map of decayed counts; also under ``~source/NAME``
    co-reads.G          map of 64-bit hashes and decayed weights

New fields get defaults, unknown ones are ignored; a higher version is refused with
:class:`~contract.errors.UnreadableState`, since an older reader would drop what it can't know.
All numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from contract.errors import NewerState, UnreadableState
from contract.messages import Cause, Device, Kind, Placement

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


class Waiting(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event on an article without a vector, as it came; ``timestamp`` is its record's.

    ``carried_from`` is -1, or the partition in which its record lay, where an absorb carried it over from another
    user: there it has been counted as folded. ``counted``: the statistics have it already.
    """

    article_id: str
    offset: int
    timestamp: int
    value: bytes
    carried_from: int = -1
    counted: bool = False


class Windows(msgspec.Struct, omit_defaults=True, gc=False):
    """The bounded rest of a user's state, oldest first; ids as 64-bit hashes, uint64 bytes.

    ``read_kinds`` (uint8, the bits of :data:`KIND_BITS`) goes with ``read``, ``shown_counts`` (uint8)
    with ``shown``. ``recents`` are the last events on articles, see :func:`recents_of`. ``affinities``
    are pairs of a category's hash and its float64 weight as of ``affinities_at``. ``minute`` is the
    last minute of event time, in which ``minute_events`` came, ``record_minute`` and ``record_minute_events`` the
    same by the records' timestamps; up to ``limited_until`` (event time) the user does not
    count in statistics. ``cause`` is the oldest event since the record before that asks for a ranking;
    ``language``, ``region`` and ``device`` are what the user's events told last, "" where none did.

    Values are replaced, never written into, so a shallow copy is a copy.
    """

    read: bytes = b""
    read_kinds: bytes = b""
    seen: bytes = b""
    shown: bytes = b""
    shown_counts: bytes = b""
    recents: bytes = b""
    follows: tuple[str, ...] = ()
    mutes: tuple[str, ...] = ()
    affinities: bytes = b""
    affinities_at: int = 0
    minute: int = 0
    minute_events: int = 0
    record_minute: int = 0
    record_minute_events: int = 0
    limited_until: int = 0
    waiting: tuple[Waiting, ...] = ()
    cause: Cause | None = None
    language: str = ""
    region: str = ""
    device: Device = ""


class Recent(NamedTuple):
    """One of the last events on articles: the article's hash and the time it happened."""

    article: int
    at: int
    kind: Kind
    dwell_ms: int


class UserRecord(msgspec.Struct, gc=False):
    """A user's state: ``numbers`` are float32 [S], little-endian, as of event time ``at``.

    ``last_offset`` is the last record taken into it, ``folded`` and ``hash_sum`` the count and the
    64-bit sum of hash(partition, offset) of the events folded since it began, ``timestamp`` the
    Kafka timestamp of its last record.
    """

    numbers: bytes
    last_offset: int = -1
    folded: int = 0
    hash_sum: int = 0
    at: int = 0
    timestamp: int = 0
    windows: Windows = msgspec.field(default_factory=Windows)

    @property
    def vector(self) -> NDArray[np.float32]:
        """The numbers as an array that cannot be written to."""
        return np.frombuffer(self.numbers, "<f4")


class PartitionTotals(msgspec.Struct, omit_defaults=True):
    """What became of all records read from one partition of ``user-events``.

    read = folded + waiting + duplicate + dead; ``hash_sum`` is over the folded. ``reasons``, ``sources`` and
    ``regions`` are the names under which statistics are kept apart here, in the order in which they came. All before
    ``next_offset`` is in them.
    """

    read: int = 0
    folded: int = 0
    waiting: int = 0
    duplicate: int = 0
    dead: int = 0
    hash_sum: int = 0
    timestamp: int = 0
    version: int = VERSION
    reasons: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    next_offset: int = 0
    regions: tuple[str, ...] = ()


class ArticleStats(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Impressions and clicks of one article or source in one partition, decayed to event time ``at``.

    ``positions`` (by the first position of each bucket), ``reasons`` and ``regions`` hold impressions and clicks of
    those whose position, reason and user's region were told. ``lately`` holds all, by the half-life in minutes with
    which they decay to ``at``: what is newer than ``at`` weighs more than 1.
    """

    at: int
    impressions: float
    clicks: float
    version: int = VERSION
    positions: dict[int, tuple[float, float]] = {}
    reasons: dict[str, tuple[float, float]] = {}
    lately: dict[int, tuple[float, float]] = {}
    regions: dict[str, tuple[float, float]] = {}


class CoReads(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an article's readers read next: 64-bit hashes (uint64 bytes) and weights (float64 bytes) as of ``at``."""

    at: int
    articles: bytes
    weights: bytes
    version: int = VERSION


SOURCE_PREFIX = "~source/"
OTHER_NAME = "other"
"""In place of names of reasons, sources and regions that are not kept apart."""
KIND_BITS: dict[Kind, int] = {"click": 1, "dwell": 2, "like": 4, "share": 8, "dislike": 16}
_KIND_OF_BIT = {bit: kind for kind, bit in KIND_BITS.items()}
RECENT = struct.Struct("<QqI")  # hash, time, bit of the kind << 16 | dwell_ms


def recents_of(windows: Windows) -> list[Recent]:
    """Return the last events on articles, oldest first."""
    return [
        Recent(article, at, _KIND_OF_BIT[what >> 16], what & 0xFFFF)
        for article, at, what in RECENT.iter_unpack(windows.recents)
    ]


Record = TypeVar("Record", ArticleMeta, Windows, PartitionTotals, ArticleStats, CoReads)

_pack = msgspec.msgpack.Encoder().encode
_unpack_meta = msgspec.msgpack.Decoder(ArticleMeta).decode
_unpack_windows = msgspec.msgpack.Decoder(Windows).decode
_unpack_totals = msgspec.msgpack.Decoder(PartitionTotals).decode
_unpack_stats = msgspec.msgpack.Decoder(ArticleStats).decode
_unpack_co_reads = msgspec.msgpack.Decoder(CoReads).decode


def encode_article(record: ArticleRecord) -> bytes:
    """Return the value for ``article-vectors.G``."""
    head = _ARTICLE_HEAD.pack(
        b"AV", VERSION, len(record.vector), record.published_at, record.expires_at, record.cause_at
    )
    return head + record.vector.astype("<f4", copy=False).tobytes() + _pack(record.meta)


def decode_article(value: bytes) -> ArticleRecord:
    """Inverse of :func:`encode_article`. Raises :class:`UnreadableState`."""
    numbers, (published_at, expires_at, cause_at), rest = _open(_ARTICLE_HEAD, b"AV", value)
    return ArticleRecord(
        np.frombuffer(numbers, "<f4"), published_at, expires_at, cause_at, _unpacked(_unpack_meta, rest)
    )


def encode_user(record: UserRecord) -> bytes:
    """Return the value for ``user-vectors.G``."""
    head = _USER_HEAD.pack(
        b"UV", VERSION, len(record.numbers) // 4,
        record.last_offset, record.folded, record.hash_sum, record.at, record.timestamp,
    )  # fmt: skip
    return head + record.numbers + _pack(record.windows)


def decode_user(value: bytes) -> UserRecord:
    """Inverse of :func:`encode_user`. Raises :class:`UnreadableState`."""
    numbers, (last_offset, folded, hash_sum, at, timestamp), rest = _open(_USER_HEAD, b"UV", value)
    windows = _unpacked(_unpack_windows, rest)
    windows.read_kinds = windows.read_kinds or bytes(len(windows.read) // 8)
    if (
        (len(windows.seen) | len(windows.shown) | len(windows.read)) % 8
        or len(windows.shown) != 8 * len(windows.shown_counts)
        or len(windows.read) != 8 * len(windows.read_kinds)
        or len(windows.affinities) % 16
        or len(windows.recents) % RECENT.size
    ):
        raise UnreadableState(
            "a UV record has windows whose bytes are no whole entries, or whose parts differ in length"
        )
    return UserRecord(numbers, last_offset, folded, hash_sum, at, timestamp, windows)


def encode_plain(record: PartitionTotals | ArticleStats | CoReads) -> bytes:
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


def decode_co_reads(value: bytes) -> CoReads:
    """Return what an article's readers read next. Raises :class:`UnreadableState`."""
    co_reads = _unpacked(_unpack_co_reads, value)
    _check_version(co_reads.version)
    if len(co_reads.articles) != len(co_reads.weights) or len(co_reads.articles) % 8:
        raise UnreadableState("a co-reads record has not one 64-bit weight for each article")
    return co_reads


def _unpacked(unpack: Callable[[bytes], Record], value: bytes) -> Record:
    try:
        return unpack(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableState(f"a state record is damaged: {error}") from None


def _open(head: struct.Struct, magic: bytes, value: bytes) -> tuple[bytes, tuple[int, ...], bytes]:
    if len(value) < head.size or value[:2] != magic:
        raise UnreadableState(f"not a {magic.decode()} record: {value[:16]!r}")
    _, version, size, *numbers = head.unpack_from(value)
    _check_version(version)
    end = head.size + 4 * size
    if len(value) <= end:
        raise UnreadableState(f"a {magic.decode()} record of {len(value)} bytes is cut short")
    return value[head.size : end], tuple(numbers), value[end:]


def _check_version(version: int) -> None:
    if version > VERSION:
        raise NewerState(
            f"the record has version {version}, this program reads up to {VERSION}; start the newer version"
        )
