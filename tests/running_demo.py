"""A whole demo as a process in a folder of its own, what it says, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from contract.settings import PREFIX
from tests.pipeline import ROOT, await_true

SMALL = ("--users=60", "--articles=120", "--clicks-per-second=40")
PAGE = re.compile(r"the page is at (http://\S+)")


class RunningDemo:
    """``stoppress demo`` in ``folder``, from its start to its end; left as a context manager it ends by SIGTERM.

    ``name`` tells demos in one folder apart; ``terminal``: the slave end of a terminal for its standard output.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        settings: Sequence[str] = (),
        name: str = "demo",
        terminal: int | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.output = self.folder / f"{name}.txt"
        env = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        chosen = [f"--set={pair}" for pair in (f"encoder={ROOT / 'var' / 'encoder'}", *settings)]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stoppress", *chosen, "demo", *arguments],
                cwd=self.folder,
                env={**env, "PYTHONPATH": str(ROOT)},
                stdout=output if terminal is None else terminal,
                stderr=output,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGTERM)

    def said(self) -> str:
        return self.output.read_text()

    def await_page(self) -> str:
        """Block until it has said where its page is; return that."""
        return await_true(self._page, "a page", 60, self.said)

    def await_figures(self, wanted: Callable[[dict[str, Any]], bool], what: str, seconds: float = 60) -> dict[str, Any]:
        """Return the first figures on the control service's stream that are as ``wanted``."""
        deadline = time.monotonic() + seconds
        seen: object = None
        for name, data in self.events():
            if name == "figures" and wanted(seen := data):
                found: dict[str, Any] = data
                return found
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}; seen: {seen}; {self.said()}"
        raise AssertionError(f"the stream ended before: {what}; {self.said()}")

    def await_live(self) -> dict[str, Any]:
        """Block until users click and get lists."""
        return self.await_figures(lambda f: f["account"]["folded"] > 100 and f["users"] > 20, "folded events and lists")

    def events(self) -> Iterator[tuple[str, Any]]:
        """What the page's control stream sends: names and data."""
        name = ""
        with httpx.stream(
            "GET", f"{self.control()}/control/stream", headers={"Origin": self.await_page()}, timeout=20
        ) as answer:
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield name, json.loads(line.removeprefix("data: "))

    def control(self) -> str:
        """Where the control service is."""
        return str(httpx.get(f"{self.await_page()}/page/config.json").json()["control"])

    def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        """What the page does with a button."""
        return httpx.post(
            f"{self.control()}/control/{path}", json=body, headers={"Origin": self.await_page(), **headers}
        )

    def feed(self, user_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"{self.await_page()}/v1/feed", params={"user_id": user_id}).json()
        return answer

    def pids(self, words: str) -> list[int]:
        """The processes of this demo, guards left out, with ``words`` in their command line."""
        commands = left_running(self.folder).items()
        return [pid for pid, command in commands if words in command and "guard.py" not in command]

    def end(self, number: signal.Signals) -> int:
        """Send a signal; block until it has ended and return the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self, seconds: float = 60) -> int:
        """Block until it has ended; return the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def _page(self) -> str | None:
        assert self.process.poll() is None, self.said()
        found = PAGE.search(self.said())
        return found[1] if found else None


def left_running(folder: Path) -> dict[int, str]:
    """The command lines of all processes that were started in ``folder``, by pid."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder.resolve():
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(process.name)] = command.decode(errors="replace")
        except OSError:
            continue
    return found
