"""Which articles carry a label: an entity, an author, a category or a source."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

NOWHERE: NDArray[np.intp] = np.zeros(0, np.intp)


class LabelIndex:
    """Labels of articles by place."""

    def __init__(self) -> None:
        self._labels: dict[int, frozenset[str]] = {}
        self._places: dict[str, set[int]] = {}
        self._arrays: dict[str, NDArray[np.intp]] = {}

    def put(self, place: int, labels: Iterable[str]) -> None:
        """Let the article at ``place`` carry ``labels`` and no others; the empty label is none."""
        new = frozenset(labels) - {""}
        old = self._labels.get(place, frozenset())
        for label in old - new:
            self._places[label].discard(place)
            if not self._places[label]:
                del self._places[label]
        for label in new - old:
            self._places.setdefault(label, set()).add(place)
        for label in old ^ new:
            self._arrays.pop(label, None)
        if new:
            self._labels[place] = new
        else:
            self._labels.pop(place, None)

    def of(self, place: int) -> frozenset[str]:
        """Return the labels of the article at ``place``."""
        return self._labels.get(place, frozenset())

    def places(self, label: str) -> NDArray[np.intp]:
        """Return where the articles with ``label`` stand, in order."""
        found = self._arrays.get(label)
        if found is None:
            if label not in self._places:
                return NOWHERE
            found = self._arrays[label] = np.sort(np.fromiter(self._places[label], np.intp))
        return found
