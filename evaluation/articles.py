"""The articles of a data set as numbers, in the order in which they became known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]
NEVER = np.iinfo(np.int64).max


class Articles:
    """Each article's index, category, vector and the time it was first seen.

    ``vectors`` float32 [capacity, dims], zero where there is none (dims 0: the data set has no texts);
    ``has_vector`` [capacity]; ``categories`` int64 [capacity], indices into ``category_names``, 0 is the unnamed one;
    ``first_seen`` int64 [capacity], epoch ms, :data:`NEVER` before; ``published_at`` the same, :data:`NEVER` where the
    data does not say. Arrays are at least as long as ``len(self)``.
    """

    def __init__(self, dims: int = 0) -> None:
        self.ids: list[str] = []
        self._index: dict[str, int] = {}
        self.category_names = [""]
        self._category: dict[str, int] = {"": 0}
        self.vectors: NDArray[np.float32] = np.zeros((1024, dims), np.float32)
        self.has_vector: NDArray[np.bool_] = np.zeros(1024, np.bool_)
        self.categories: NDArray[np.int64] = np.zeros(1024, np.int64)
        self.first_seen: NDArray[np.int64] = np.full(1024, NEVER)
        self.published_at: NDArray[np.int64] = np.full(1024, NEVER)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dims(self) -> int:
        return int(self.vectors.shape[1])

    def index(self, article_id: str) -> int:
        """Return the article's index, made where it is new."""
        index = self._index.get(article_id)
        if index is None:
            index = self._index[article_id] = len(self.ids)
            self.ids.append(article_id)
            if index == len(self.first_seen):
                self.vectors = grown(self.vectors, index + 1)
                self.has_vector = grown(self.has_vector, index + 1)
                self.categories = grown(self.categories, index + 1)
                self.first_seen = grown(self.first_seen, index + 1, NEVER)
                self.published_at = grown(self.published_at, index + 1, NEVER)
        return index

    def indices(self, article_ids: Sequence[str]) -> Indices:
        """Return the articles' indices, [n]."""
        return np.fromiter((self.index(article_id) for article_id in article_ids), np.intp, len(article_ids))

    def describe(self, article_id: str, category: str, vector: NDArray[np.float32], published_at: int = NEVER) -> None:
        """Say what is known of an article beside its id."""
        index = self.index(article_id)
        if category not in self._category:
            self._category[category] = len(self.category_names)
            self.category_names.append(category)
        self.categories[index] = self._category[category]
        self.vectors[index] = vector
        self.has_vector[index] = bool(vector.any())
        self.published_at[index] = published_at

    def most_read_category(self, history: Indices) -> str:
        """Return the category of most of ``history``, empty where none has a name."""
        counts = np.bincount(self.categories[history], minlength=2)
        counts[0] = 0
        return self.category_names[int(counts.argmax())] if counts.any() else ""

    def note_seen(self, articles: Indices, at: int) -> None:
        """Note that these were on offer at ``at``."""
        self.first_seen[articles] = np.minimum(self.first_seen[articles], at)


def grown(array: NDArray[Any], needed: int, fill: float = 0) -> NDArray[Any]:
    """Return ``array`` with room for ``needed`` rows, at least twice as many as before, the new ones ``fill``."""
    if needed <= len(array):
        return array
    larger = np.full((max(needed, 2 * len(array)), *array.shape[1:]), fill, array.dtype)
    larger[: len(array)] = array
    return larger
