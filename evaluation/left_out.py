"""What of a data set could not be used: counted by kind, the first of each named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

NAMED = 5


class LeftOut:
    """Counts by kind, and says the first :data:`NAMED` of each."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.counts: Counter[str] = Counter()

    def __call__(self, kind: str, which: str) -> None:
        """Note one: ``kind`` is what is wrong, ``which`` names it."""
        self.counts[kind] += 1
        if self.counts[kind] <= NAMED:
            self._say(f"{kind}: {which}")

    def sum_up(self) -> None:
        """Say how many there were of each kind of which not all were named."""
        for kind, count in self.counts.items():
            if count > NAMED:
                self._say(f"{kind}: {count:,} in all")
