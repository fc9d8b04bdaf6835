"""What sends articles and events into the demo: the simulator or a replay, in a process of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from demo.processes import Child
from demo.report import Judgement
from demo.room import DemoRoom

STOP_SECONDS = 20.0


class _Progress(Judgement):
    """A line of progress: JSON with at least the judgement; unknown fields are ignored."""


_decode = msgspec.json.Decoder(_Progress).decode


class Source:
    """Runs ``stoppress ARGUMENTS`` and hands the judgement in its progress lines to the room.

    ``live`` is set by the first such line: what was there before the demo has been published.
    """

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], log: Path, room: DemoRoom) -> None:
        log.unlink(missing_ok=True)
        self._room = room
        self._child = Child("source", arguments, env, log, on_line=self._take)
        self._stopped = False
        self.live = threading.Event()

    def start(self) -> None:
        self._child.start()

    @property
    def running(self) -> bool:
        return self._child.running

    @property
    def exit_code(self) -> int | None:
        return self._child.exit_code

    @property
    def failed(self) -> bool:
        """It did not end well; that a stop came before it could take one is no failure."""
        well = (None, 0, 256 - signal.SIGTERM) if self._stopped else (None, 0)
        return self.exit_code not in well

    def last_line(self) -> str:
        return self._child.last_line()

    def stop(self) -> None:
        """SIGTERM; it sends what is queued and its last line of progress. Blocks until it has ended."""
        self._stopped = self._stopped or self.running
        self._child.stop(STOP_SECONDS)

    def _take(self, line: bytes) -> None:
        if not line.startswith(b"{"):
            return
        try:
            progress = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        self.live.set()
        self._room.judgement = progress
