"""Why an item is in a list, as a stable code."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

REASONS = ("interest", "recent_interest", "popular", "new")
"""In the order of the parts of a score; fatigue carries nothing."""
SOURCE_OF = {"interest": "similar", "recent_interest": "similar", "popular": "popular", "new": "newest"}


def carriers(parts: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return which of :data:`REASONS` carried each score: [..., parts as in scoring.PARTS] -> [...]."""
    carried: NDArray[np.intp] = parts[..., : len(REASONS)].argmax(axis=-1)
    return carried
