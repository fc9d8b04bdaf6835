"""Why an item is in a list, as a stable code."""

from __future__ import annotations

from collections.abc import Sequence

SOURCE_OF = {"interest": "similar", "recent_interest": "similar", "popular": "popular", "new": "newest"}
_REASONS = ("interest", "recent_interest", "popular", "new")


def reason_of(parts: Sequence[float]) -> str:
    """Return the code of the part that carried the score; ``parts`` in the order of scoring.PARTS."""
    carried = max(range(len(_REASONS)), key=parts.__getitem__)
    return _REASONS[carried]
