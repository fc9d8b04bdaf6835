"""A Kafka broker that belongs to the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from contract.errors import PortInUse, SetupError
from streams.local_broker import process
from streams.local_broker.install import Installation, prepare
from streams.local_broker.jars import Say

STATE_NAME = "broker.json"
_READY_SECONDS = 90.0
_STOP_SECONDS = 20.0
_GUARD = Path(__file__).with_name("guard.py")


class BrokerState(msgspec.Struct, frozen=True):
    """What a running broker leaves in its data directory."""

    pid: int
    port: int


class LocalBroker:
    """One Kafka node on loopback. :meth:`start` returns when it answers; as a context manager it is stopped at the end.

    ``die_with_parent``: it ends with the process that started it, however that one ends. The data
    directory is kept; its log is ``kafka.log`` in there.
    """

    def __init__(
        self,
        installation: Installation,
        data_dir: Path,
        *,
        port: int = 0,
        die_with_parent: bool,
        throughput: bool = False,
        options: tuple[str, ...] = (),
    ) -> None:
        self._installation = installation
        self._die_with_parent = die_with_parent
        self._any_port = port == 0
        self._process: subprocess.Popen[bytes] | None = None
        aot = installation.aot_cache
        use_aot = (f"-XX:AOTCache={aot}",) if aot is not None else ()
        self._options = process.jvm_options(throughput=throughput) + use_aot + options
        self.data_dir = data_dir.resolve()
        self.port = port
        self.pid = 0

    @classmethod
    def start(
        cls,
        data_dir: Path,
        *,
        port: int = 0,
        die_with_parent: bool = True,
        throughput: bool = False,
        say: Say | None = None,
    ) -> Self:
        """Start a broker with its data in ``data_dir`` and block until it answers.

        ``port`` 0 takes a free one and keeps it over :meth:`restart`. ``throughput`` lets Java optimise
        fully (benchmarks) where the default starts quickest. The first start on a machine fetches
        what is missing and tells ``say`` (default: standard error). Raises :class:`PortInUse` and
        :class:`SetupError`.
        """
        broker = cls(prepare(say), data_dir, port=port, die_with_parent=die_with_parent, throughput=throughput)
        broker.launch()
        return broker

    @property
    def bootstrap_servers(self) -> str:
        return f"{process.HOST}:{self.port}"

    @property
    def log(self) -> Path:
        return self.data_dir / process.LOG_NAME

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the process and block until it answers. Raises as :meth:`start`."""
        for last_try in (False, False, True):
            if self._any_port and self.port == 0:
                self.port = process.free_port()
            process.require_free(self.port)
            self._spawn(process.prepare_files(self.data_dir, self.port, self._installation.template))
            if process.wait_ready(self.port, lambda: self.running, _READY_SECONDS):
                return
            self.kill()
            error = process.last_error(self.data_dir)
            if "BindException" not in error and "Address already in use" not in error:
                raise SetupError(f"Kafka did not start ({error}); its log is {self.log}")
            if last_try or not self._any_port:
                raise PortInUse(f"port {self.port} on {process.HOST} is taken; choose another with --port")
            self.port = 0

    def stop(self, seconds: float = _STOP_SECONDS) -> None:
        """Shut down in order; kill after ``seconds``. Blocks until the process has ended."""
        if self._process is None:
            return
        if self.running:
            _signal(self.pid, signal.SIGTERM)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                _signal(self.pid, signal.SIGKILL)
        self._reap()

    def kill(self) -> None:
        """End it as a crash would: kill -9. Blocks until the process has ended."""
        if self._process is None:
            return
        if self.running:
            _signal(self.pid, signal.SIGKILL)
        self._reap()

    def restart(self) -> None:
        """Stop it if it runs, and start it on the same port with the same data. Blocks until it answers."""
        self.stop()
        self.launch()

    def leave(self) -> None:
        """Let it go on without this object."""
        if self._process is not None:
            self._process.returncode = 0  # or Popen warns that a child still runs
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _spawn(self, properties: Path) -> None:
        line = process.command(self._installation.java, self._installation.classpath, properties, self._options)
        # A session of its own: Ctrl-C reaches the one who started it, who stops it last.
        with self.log.open("ab") as log:
            if self._die_with_parent:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(_GUARD), *line],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
                )  # fmt: skip
                assert self._process.stdout is not None
                self.pid = int(self._process.stdout.readline())
            else:
                self._process = subprocess.Popen(
                    line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
                self.pid = self._process.pid
        state = BrokerState(self.pid, self.port)
        (self.data_dir / STATE_NAME).write_bytes(msgspec.json.encode(state))

    def _reap(self) -> None:
        assert self._process is not None
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
