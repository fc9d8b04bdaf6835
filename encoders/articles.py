"""The articles that have a vector, as rows of arrays."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from contract.records import ArticleMeta, ArticleRecord

REMEMBERED_GONE = 100_000
_COLUMNS = ("vectors", "hashes", "published_at", "expires_at", "cause_at", "listed", "held")


def hash64(text: str) -> int:
    """Return the 64-bit BLAKE2b of ``text``, the form in which windows keep ids."""
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


class ArticleTable:
    """Vectors and metadata by row; a withdrawn article's row is used again.

    ``vectors`` is float32 [capacity, dims]; ``hashes`` uint64, the times int64 in epoch ms,
    ``listed`` whether the row holds an article, ``held`` whether an editor holds it back, all
    [capacity]. Rows that hold none are zero.
    """

    def __init__(self, dims: int, capacity: int = 1024) -> None:
        self.dims = dims
        self._rows: dict[str, int] = {}
        self._free: list[int] = []
        self._gone: OrderedDict[str, None] = OrderedDict()
        self.ids: list[str] = []
        self.meta: list[ArticleMeta] = []
        self.vectors: NDArray[np.float32] = np.zeros((capacity, dims), np.float32)
        self.hashes: NDArray[np.uint64] = np.zeros(capacity, np.uint64)
        self.published_at: NDArray[np.int64] = np.zeros(capacity, np.int64)
        self.expires_at: NDArray[np.int64] = np.zeros(capacity, np.int64)
        self.cause_at: NDArray[np.int64] = np.zeros(capacity, np.int64)
        self.listed: NDArray[np.bool_] = np.zeros(capacity, np.bool_)
        self.held: NDArray[np.bool_] = np.zeros(capacity, np.bool_)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, article_id: str) -> int | None:
        """Return the article's row, or None where it has no vector here."""
        return self._rows.get(article_id)

    def is_gone(self, article_id: str) -> bool:
        """Whether the article is known as withdrawn."""
        return article_id in self._gone

    def put(self, article_id: str, record: ArticleRecord) -> int:
        """Insert or replace an article; return its row. The vector must have ``dims`` numbers."""
        self._gone.pop(article_id, None)
        row = self._rows.get(article_id)
        if row is None:
            row = self._free.pop() if self._free else len(self.ids)
            if row == len(self.ids):
                self.ids.append(article_id)
                self.meta.append(record.meta)
                if row == len(self.listed):
                    self._grow()
            self._rows[article_id] = row
            self.ids[row] = article_id
            self.hashes[row] = hash64(article_id)
            self.listed[row] = True
        self.vectors[row] = record.vector
        self.meta[row] = record.meta
        self.published_at[row] = record.published_at
        self.expires_at[row] = record.expires_at
        self.cause_at[row] = record.cause_at
        self.held[row] = record.meta.placement == "held"
        return row

    def withdraw(self, article_id: str) -> int | None:
        """Take an article out; return the row it had. Its id is remembered for a while."""
        self._gone[article_id] = None
        self._gone.move_to_end(article_id)
        if len(self._gone) > REMEMBERED_GONE:
            self._gone.popitem(last=False)
        row = self._rows.pop(article_id, None)
        if row is not None:
            self.ids[row] = ""
            self.meta[row] = ArticleMeta()
            for name in _COLUMNS:
                getattr(self, name)[row] = 0
            self._free.append(row)
        return row

    def _grow(self) -> None:
        for name in _COLUMNS:
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros_like(old)]))
