"""Lines of a data set that cannot be used: named by place, up to a bounded number, and counted."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

NAMED = 20


class BrokenLine(msgspec.Struct, frozen=True):
    """A line that was left out; ``str`` is ``file:line: what is wrong``."""

    file: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.problem}"


OnBroken = Callable[[BrokenLine], None]


class BrokenLines:
    """Says the first :data:`NAMED` of them and counts them all."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.count = 0

    def __call__(self, line: BrokenLine) -> None:
        self.count += 1
        if self.count <= NAMED:
            self._say(f"left out: {line}")

    def sum_up(self) -> None:
        """Say how many there were, where there were more than named."""
        if self.count > NAMED:
            self._say(f"left out: {self.count - NAMED:,} more lines, {self.count:,} in all")
