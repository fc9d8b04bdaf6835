"""Measures of one ranked list, by the definitions of the MIND challenge.

``ranks`` are the places of the clicked items in the list, the first is 1, ascending; none where what was clicked was
not to be ranked at all, which counts as a miss.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ranks = NDArray[np.intp]
_GAINS = 1.0 / np.log2(np.arange(2, 1026))
_IDEAL = np.concatenate([[0.0], np.cumsum(_GAINS)])


def ranks_of(scores: Floats, clicked: NDArray[np.bool_]) -> Ranks:
    """Return the ranks of the clicked items, larger scores first; of equal scores the one that stands first."""
    if np.count_nonzero(clicked) == 1:
        place = int(clicked.argmax())
        ahead = np.count_nonzero(scores > scores[place]) + np.count_nonzero(scores[:place] == scores[place])
        return np.array([ahead + 1], np.intp)
    return np.flatnonzero(clicked[np.argsort(-scores, kind="stable")]) + 1


def auc(scores: Floats, clicked: NDArray[np.bool_]) -> float:
    """Return the share of pairs (clicked, not clicked) in the right order, ties counting half; both must be there."""
    others = np.sort(scores[~clicked])
    wins = np.searchsorted(others, scores[clicked], "left") + np.searchsorted(others, scores[clicked], "right")
    return float(wins.mean()) / 2 / len(others)


def mrr(ranks: Ranks) -> float:
    """Return the mean of the reciprocal ranks of all clicked items, as MIND's own scorer does."""
    return float((1.0 / ranks).mean()) if len(ranks) else 0.0


def mrr_at(ranks: Ranks, k: int) -> float:
    """Return the reciprocal rank of the first clicked item, 0 where that is beyond ``k``."""
    return 1.0 / float(ranks[0]) if len(ranks) and ranks[0] <= k else 0.0


def hit_at(ranks: Ranks, k: int) -> float:
    """Return 1 where a clicked item is among the first ``k``, else 0."""
    return float(len(ranks) > 0 and ranks[0] <= k)


def ndcg_at(ranks: Ranks, k: int) -> float:
    """Return the normalised discounted cumulative gain of the first ``k`` (at most 1,024), gains 0 and 1."""
    found = ranks[ranks <= k]
    return float(_GAINS[found - 1].sum() / _IDEAL[min(len(ranks), k)]) if len(found) else 0.0


def best(scores: Floats, k: int) -> NDArray[np.intp]:
    """Return the places of the ``k`` largest scores (or of all), largest first; of equal ones the first."""
    n = len(scores)
    if n > 8 * k:
        least = np.partition(scores, n - k)[n - k]
        above = np.flatnonzero(scores > least)
        chosen = np.concatenate([above, np.flatnonzero(scores == least)[: k - len(above)]])
        chosen.sort()
        return chosen[np.argsort(-scores[chosen], kind="stable")]
    return np.argsort(-scores, kind="stable")[:k]
