"""The articles that have a vector, as rows of arrays."""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from contract.records import ArticleMeta, ArticleRecord

REMEMBERED_GONE = 100_000
_COLUMNS = ("vectors", "hashes", "published_at", "expires_at", "cause_at", "listed", "held")


def hash_bytes(text: str) -> bytes:
    """Return the 64-bit BLAKE2b of ``text``, the form in which windows keep ids."""
    return blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()


def hash64(text: str) -> int:
    """Return :func:`hash_bytes` as a number."""
    return int.from_bytes(hash_bytes(text), "little")


@lru_cache(10_000)
def _category_hash(category: str) -> int:
    return hash64(category) if category else 0


class ArticleTable:
    """Vectors and metadata by row; a withdrawn article's row is used again.

    ``vectors`` is float32 [capacity, dims]; ``hashes`` uint64, the times int64 in epoch ms,
    ``listed`` whether the row holds an article, ``held`` whether an editor holds it back, all
    [capacity]. Rows that hold none are zero. ``hash_bytes`` and ``categories`` (their 64-bit hashes, 0: none)
    are lists by row, ``rows`` the row of each article_id, for whoever goes event by event.
    """

    def __init__(self, dims: int, capacity: int = 1024) -> None:
        self.dims = dims
        self.rows: dict[str, int] = {}
        self._free: list[int] = []
        self._gone: OrderedDict[str, None] = OrderedDict()
        self.ids: list[str] = []
        self.meta: list[ArticleMeta] = []
        self.hash_bytes: list[bytes] = []
        self.categories: list[int] = []
        self._rows_by_hash: dict[int, int] = {}
        self.vectors: NDArray[np.float32] = np.zeros((capacity, dims), np.float32)
        self.hashes: NDArray[np.uint64] = np.zeros(capacity, np.uint64)
        self.published_at: NDArray[np.int64] = np.zeros(capacity, np.int64)
        self.expires_at: NDArray[np.int64] = np.zeros(capacity, np.int64)
        self.cause_at: NDArray[np.int64] = np.zeros(capacity, np.int64)
        self.listed: NDArray[np.bool_] = np.zeros(capacity, np.bool_)
        self.held: NDArray[np.bool_] = np.zeros(capacity, np.bool_)

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, article_id: str) -> int | None:
        """Return the article's row, or None where it has no vector here."""
        return self.rows.get(article_id)

    def row_of_hash(self, article: int) -> int | None:
        """Return the row of the article with this 64-bit hash, or None where it has no vector here."""
        return self._rows_by_hash.get(article)

    def is_gone(self, article_id: str) -> bool:
        """Whether the article is known as withdrawn."""
        return article_id in self._gone

    def put(self, article_id: str, record: ArticleRecord) -> int:
        """Insert or replace an article; return its row. The vector must have ``dims`` numbers."""
        self._gone.pop(article_id, None)
        row = self.rows.get(article_id)
        if row is None:
            row = self._free.pop() if self._free else len(self.ids)
            if row == len(self.ids):
                self.ids.append(article_id)
                self.meta.append(record.meta)
                self.hash_bytes.append(b"")
                self.categories.append(0)
                if row == len(self.listed):
                    self._grow()
            self.rows[article_id] = row
            self.ids[row] = article_id
            self.hash_bytes[row] = hash_bytes(article_id)
            hashed = int.from_bytes(self.hash_bytes[row], "little")
            self.hashes[row] = hashed
            self._rows_by_hash[hashed] = row
            self.listed[row] = True
        self.vectors[row] = record.vector
        self.meta[row] = record.meta
        self.categories[row] = _category_hash(record.meta.category)
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
        row = self.rows.pop(article_id, None)
        if row is not None:
            del self._rows_by_hash[int(self.hashes[row])]
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
