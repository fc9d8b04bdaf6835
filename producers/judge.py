"""Two arms held against each other: the users' own lists, and the popular list shown to the same users."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from producers.simulated_users import Bools, Ints

TOP = 10


class Arms(msgspec.Struct):
    """One figure for both arms; None where it was not measured."""

    personal: float | None = None
    popular: float | None = None


class Arm:
    """Clicks, items seen and truly liked items of one arm, by user."""

    def __init__(self, users: int) -> None:
        self._clicks = np.zeros(users)
        self._seen = np.zeros(users)
        self._liked = np.zeros(users)
        self._top = np.zeros(users)
        self.by_position = np.zeros((2, 256), np.int64)
        """Clicks and times seen by place in the list."""

    def take(self, users: Ints, seen: Bools, clicked: Bools, liked: Bools) -> None:
        """Take in views of ``users [n]`` (no one twice) of lists: bool ``[n, k]`` each; ``liked [n, top]``
        is already cut to the top of the list, empty places False."""
        self._clicks[users] += clicked.sum(axis=1)
        self._seen[users] += seen.sum(axis=1)
        self._liked[users] += liked.sum(axis=1)
        self._top[users] += liked.shape[1]
        width = seen.shape[1]
        self.by_position[0, :width] += clicked.sum(axis=0)
        self.by_position[1, :width] += seen.sum(axis=0)

    @property
    def clicks(self) -> int:
        return int(self._clicks.sum())

    def ctr(self) -> tuple[float | None, float | None]:
        """Clicks per item seen, and its standard error with users as clusters."""
        return _ratio(self._clicks, self._seen)

    def precision(self) -> tuple[float | None, float | None]:
        """Share of truly liked items in the top of the lists, and its standard error."""
        return _ratio(self._liked, self._top)


def _ratio(part: np.ndarray, whole: np.ndarray) -> tuple[float | None, float | None]:
    total = whole.sum()
    if not total:
        return None, None
    ratio = float(part.sum() / total)
    return ratio, float(math.sqrt(((part - ratio * whole) ** 2).sum()) / total)
