"""The demo's child processes: started with settings in their environment, watched, never left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from contract.settings import PREFIX, Settings
from streams.local_broker import guard


def environment(settings: Settings) -> dict[str, str]:
    """This process's environment with ``settings``, and no others, as ``STOPPRESS_*``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    for name, value in settings.model_dump(mode="json").items():
        if value is not None:
            inherited[PREFIX + name.upper()] = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return inherited


class Child:
    """``python -m stoppress ARGUMENTS`` under a guard that ends it when this process dies.

    Output goes to ``log``; with ``on_line`` each line is handed to it first, on a thread of its own.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        *,
        port: int = 0,
        on_line: Callable[[bytes], None] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.port = port
        self.pid = 0
        self._command = [sys.executable, "-I", "-S", guard.__file__, sys.executable, "-m", "stoppress", *arguments]
        self._env = dict(env)
        self._on_line = on_line
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._log_begins = 0

    def start(self) -> None:
        """Start it, or start it again after it has ended. Returns as soon as it has a pid."""
        self._close()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._log_begins = log.tell()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if self._on_line else log,
                env=self._env,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        self.pid = int(self._process.stdout.readline() or 0)  # nothing: even the guard has died
        if self._on_line:
            self._reader = threading.Thread(target=self._read_lines, name=f"{self.name}-lines", daemon=True)
            self._reader.start()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code, 256 - N where signal N ended it; None while it runs or before its start."""
        return None if self._process is None else self._process.poll()

    def ready(self, seconds: float = 1.0) -> bool:
        """Whether it answers /readyz with 200."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=seconds) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself, not to its guard."""
        if self.running and self.pid:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass

    def terminate(self) -> None:
        """SIGTERM; does not block."""
        self.signal(signal.SIGTERM)

    def stop(self, seconds: float) -> None:
        """SIGTERM, and SIGKILL after ``seconds``; blocks until it has ended."""
        self.terminate()
        self.wait(seconds)
        self._close()

    def wait(self, seconds: float) -> None:
        """Block until it has ended; kill it after ``seconds``."""
        if self._process is None:
            return
        try:
            self._process.wait(max(seconds, 0.01))
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self._process.wait()
        if self._reader is not None:
            self._reader.join(2)

    def last_line(self) -> str:
        """The end of its log, for a message about why it ended."""
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1] if lines else f"see {self.log}"

    def logged(self, event: str) -> bool:
        """Whether its log since its last start has an event of this name."""
        try:
            with self.log.open("rb") as log:
                log.seek(self._log_begins)
                return any(f'"event":"{event}"'.encode() in line for line in log)
        except OSError:
            return False

    def _read_lines(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        assert self._on_line is not None
        with self.log.open("ab", buffering=0) as log:
            for line in self._process.stderr:
                log.write(line)
                self._on_line(line)

    def _close(self) -> None:
        if self._process is None:
            return
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        if self._process.stderr is not None and self._reader is not None and not self._reader.is_alive():
            self._process.stderr.close()
