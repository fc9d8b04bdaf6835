"""A long command as its user sees it: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LINE_SECONDS = 5.0
T = TypeVar("T")
WIDE = 200
"""Columns where nothing says how wide lines may be: in a pipe or a file."""


def wide_console() -> Console:
    """Return a console for wide tables, which outside a terminal are not squeezed into 80 columns."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


class Display:
    """A context manager; says things and shows how far it is, on ``console``."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._next_line = 0.0
        if console.is_terminal:
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            self._progress = Progress(*columns, TextColumn("{task.fields[text]}"), console=console)

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_error: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, name: str, done: int, total: int, text: str = "", *, line: bool = False) -> None:
        """Say that ``done`` of ``total`` are done of what ``name`` names; ``line``: in a log too, whatever the time."""
        if self._progress is not None:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(name, total=total, text="")
            self._progress.update(self._tasks[name], completed=done, total=total, text=text)
        elif line or time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            self.say(f"{name} {done:,} of {total:,}{' · ' if text else ''}{text}")

    def track(self, items: Sequence[T], name: str) -> Iterator[T]:
        """Yield ``items`` and show how many are done."""
        for done, item in enumerate(items):
            self.show(name, done, len(items))
            yield item
        self.show(name, len(items), len(items))
