"""Why an item is in a list, as a stable code and in words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ranking.features import PARTS

REASON_OF = {
    "long": "interest",
    "short": "recent_interest",
    "nearest": "similar_to_read",
    "category": "category",
    "co_reads": "read_together",
    "followed": "followed",
    "popularity": "popular",
    "appeal": "appealing",
    "freshness": "new",
    "editor": "editors_choice",
}
"""By the part that carried the score; fatigue carries nothing."""
EXPLORATION, EDITORS_CHOICE = "exploration", "editors_choice"
WORDS = {
    "interest": "Close to what you read",
    "recent_interest": "Close to what you read just now",
    "similar_to_read": "Like an article you read",
    "category": "From a section you read often",
    "read_together": "Readers of your last article went on to this",
    "followed": "About something you follow",
    "popular": "Many are reading it now",
    "appealing": "Of a kind that readers like",
    "new": "Published lately",
    "editors_choice": "Chosen by the editors",
    "exploration": "New here: few have seen it yet",
}
_REASONS = [REASON_OF[part] for part in PARTS if part in REASON_OF]
_NEW = _REASONS.index("new")


def reasons(parts: NDArray[np.float32], drawn: NDArray[np.bool_], pinned: NDArray[np.bool_]) -> list[list[str]]:
    """Return why each article is in its list: parts [u, k, parts], ``drawn`` to be explored and ``pinned`` [u, k]."""
    speaking = parts[..., : len(_REASONS)].copy()
    if speaking.shape[1]:
        # How fresh all of a list is sets none of it apart.
        speaking[..., _NEW] -= speaking[..., _NEW].min(axis=1, keepdims=True)
    carried = np.where(speaking.max(axis=-1) > 0, speaking.argmax(axis=-1), _NEW)
    codes = np.where(pinned, len(_REASONS), np.where(drawn, len(_REASONS) + 1, carried))
    names = [*_REASONS, EDITORS_CHOICE, EXPLORATION]
    return [[names[code] for code in row] for row in codes.tolist()]
