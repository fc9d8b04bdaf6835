"""What the articles worker has read ahead and not embedded yet: the newest first, and what may be committed.

Newest is who was published last; who claims to be published after its record came counts from the
record, so an embargo is no priority; of the same age, who came last. Of an article only the newest
version waits. No Kafka, no clock.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from contract.records import ArticleMeta

READ_AHEAD_BYTES = 256 << 20
_PEERS_MS = 86_400_000
_WINDOW = 4  # batches' worth of the newest from which one is filled with texts of like length
_OVERHEAD = 1000  # bytes of an article beside its tokens, roughly


@dataclass(slots=True, eq=False)
class Version:
    """One record of ``articles``, as far as it is needed until its vector is written; times in epoch ms.

    ``expires_at`` 0 means never. ``tokens`` is int32, at most what the model reads.
    """

    article_id: str
    partition: int
    offset: int
    timestamp: int
    published_at: int
    expires_at: int
    meta: ArticleMeta
    text_hash: int
    tokens: NDArray[np.int32]
    read_at: float = 0.0
    editor: str = ""

    @property
    def key(self) -> tuple[int, str]:
        return self.partition, self.article_id

    @property
    def rank(self) -> tuple[int, int, int, int]:
        """Greater is newer; unique."""
        return min(self.published_at, self.timestamp), self.timestamp, self.partition, self.offset

    @property
    def size(self) -> int:
        """Bytes held, roughly."""
        meta = self.meta
        labels = sum(map(len, (*meta.tags, *meta.entities, *meta.authors)))
        return _OVERHEAD + self.tokens.nbytes + labels


class Backlog:
    """At most ``limit`` articles that wait or are being embedded, and the unfinished offsets of each partition.

    Whoever adds asks :attr:`room` first. An offset is finished once nothing is left to be written
    for it: its vector is staged, or a newer version took its place.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._tokens = 0
        self._waiting: dict[tuple[int, str], Version] = {}
        self._running: dict[tuple[int, str], Version] = {}
        self._newest: list[Version] = []  # by rank, ascending
        self._unfinished: dict[int, OrderedDict[int, None]] = {}
        self._read: dict[int, int] = {}

    def __len__(self) -> int:
        """Articles that wait; those in a batch no longer do."""
        return len(self._waiting)

    @property
    def room(self) -> int:
        """How many more records may be read now."""
        if self._bytes >= READ_AHEAD_BYTES:
            return 0
        return max(0, self._limit - len(self._waiting) - len(self._running))

    @property
    def tokens(self) -> int:
        """Tokens of the articles that wait."""
        return self._tokens

    def waiting(self, partition: int, article_id: str) -> Version | None:
        """Return the version of the article that waits."""
        return self._waiting.get((partition, article_id))

    def is_unfinished(self, partition: int, offset: int) -> bool:
        """Whether this record has been read and not been finished."""
        return offset in self._unfinished.get(partition, ())

    def oldest(self) -> int | None:
        """Return the least Kafka timestamp (epoch ms) of those that wait; looks at all of them."""
        return min((version.timestamp for version in self._waiting.values()), default=None)

    def passed(self, partition: int, offset: int) -> None:
        """Note that the partition was read up to and with ``offset``."""
        self._read[partition] = max(offset + 1, self._read.get(partition, 0))

    def add(self, version: Version) -> None:
        """Let ``version`` wait, in the place of an older one of the same article."""
        self.cancel(version.partition, version.article_id)
        self._waiting[version.key] = version
        insort(self._newest, version, key=attrgetter("rank"))
        self._bytes += version.size
        self._tokens += len(version.tokens)
        self._unfinished.setdefault(version.partition, OrderedDict())[version.offset] = None

    def cancel(self, partition: int, article_id: str) -> Version | None:
        """Finish the version of the article that waits, if any; return it."""
        version = self._waiting.pop((partition, article_id), None)
        if version is not None:
            self._remove(version)
            self._finish(version)
        return version

    def take(self, max_articles: int, max_tokens: int) -> list[Version]:
        """Return the next batch, no longer waiting: at most ``max_tokens`` padded tokens, or one article.

        It holds the newest article. The longest text of the batch, not shorter than that one, is
        chosen so that most tokens of the newest and of those at most a day older get in; what
        padding would fill goes to older ones.
        """
        if not self._newest:
            return []
        window = self._newest[-_WINDOW * max_articles :]
        newest = window[-1]
        peers_since = newest.rank[0] - _PEERS_MS
        first_peer = next(i for i, version in enumerate(window) if version.rank[0] >= peers_since)
        lengths = np.array([len(version.tokens) for version in window])
        peers = first_peer + np.argsort(lengths[first_peer:-1], kind="stable")
        longest = _best_length(len(newest.tokens), lengths[peers], max_articles, max_tokens)
        free = max(1, min(max_articles, max_tokens // longest)) - 1
        chosen: list[int] = []
        for group in (peers, np.argsort(lengths[:first_peer], kind="stable")):
            fitting = group[lengths[group] <= longest]
            chosen += fitting[max(0, len(fitting) - free + len(chosen)) :].tolist()
        batch = [newest, *(window[i] for i in chosen)]
        for version in batch:
            del self._waiting[version.key]
            self._remove(version)
            self._bytes += version.size
            self._running[version.key] = version
        return batch

    def end_run(self, version: Version) -> bool:
        """Finish a version of the last batch; return False where its partition was dropped meanwhile."""
        if self._running.get(version.key) is not version:
            return False
        del self._running[version.key]
        self._bytes -= version.size
        self._finish(version)
        return True

    def committable(self, partition: int) -> int | None:
        """Return the offset before which everything is finished, None where nothing was read."""
        unfinished = self._unfinished.get(partition)
        return next(iter(unfinished)) if unfinished else self._read.get(partition)

    def read_to(self, partition: int) -> int:
        """Return the offset after the last one read, 0 where none was."""
        return self._read.get(partition, 0)

    def partitions(self) -> set[int]:
        return self._unfinished.keys() | self._read.keys()

    def drop(self, partition: int) -> None:
        """Forget all that was read of a partition."""
        for version in [v for v in self._waiting.values() if v.partition == partition]:
            del self._waiting[version.key]
            self._bytes -= version.size
            self._tokens -= len(version.tokens)
        for version in [v for v in self._running.values() if v.partition == partition]:
            del self._running[version.key]
            self._bytes -= version.size
        self._newest = [version for version in self._newest if version.partition != partition]
        self._unfinished.pop(partition, None)
        self._read.pop(partition, None)

    def _remove(self, version: Version) -> None:
        place = bisect_left(self._newest, version.rank, key=attrgetter("rank"))
        assert self._newest[place] is version
        del self._newest[place]
        self._bytes -= version.size
        self._tokens -= len(version.tokens)

    def _finish(self, version: Version) -> None:
        del self._unfinished[version.partition][version.offset]


def _best_length(least: int, ascending: NDArray[np.int64], max_articles: int, max_tokens: int) -> int:
    """Return the padded length, at least ``least``, with which most tokens of texts of these lengths get in."""
    sums = np.concatenate([[0], np.cumsum(ascending)])
    best, most = least, -1
    for length in (least, *np.unique(ascending[ascending > least]).tolist()):
        fitting = int(np.searchsorted(ascending, length, side="right"))
        slots = max(1, min(max_articles, max_tokens // length)) - 1
        tokens = int(sums[fitting] - sums[max(0, fitting - slots)])
        if tokens > most:
            best, most = length, tokens
    return best
