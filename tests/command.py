"""The command line as a process: its exit code and what it says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from contract.settings import Settings
from demo.processes import environment


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def stoppress(settings: Settings, *arguments: str, environ: Mapping[str, str] | None = None) -> Answer:
    """Run ``stoppress ARGUMENTS`` with ``settings`` and then ``environ`` in its environment; block until it ends."""
    ended = subprocess.run(
        [sys.executable, "-m", "stoppress", *arguments],
        env=environment(settings) | dict(environ or {}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Answer(ended.returncode, ended.stdout, ended.stderr)


def refused(answer: Answer) -> str:
    """The one line with which a command refused to start; exit code 2, nothing else said, no traceback."""
    assert (answer.code, answer.out) == (2, ""), answer
    (line,) = answer.err.splitlines()
    assert line.startswith("stoppress: ")
    return line.removeprefix("stoppress: ")
