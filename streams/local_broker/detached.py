"""``stoppress kafka start|stop|status``: a broker that outlives the command, found again by its data directory."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import msgspec

from contract.errors import SetupError
from streams.local_broker import process
from streams.local_broker.broker import STATE_NAME, BrokerState, LocalBroker
from streams.local_broker.install import prepare
from streams.local_broker.jars import Say, exclusive


class Status(msgspec.Struct, frozen=True):
    """A broker that runs. ``ready``: it answers; ``started``: this call started it."""

    pid: int
    port: int
    ready: bool
    started: bool = False

    @property
    def bootstrap_servers(self) -> str:
        return f"{process.HOST}:{self.port}"


def start_detached(data_dir: Path, *, port: int = 9092, throughput: bool = False, say: Say | None = None) -> Status:
    """Start a broker that goes on after this process ends, or find the one that runs on ``data_dir``.

    Blocks until it answers. Raises :class:`~contract.errors.PortInUse` and :class:`SetupError`.
    """
    data_dir = data_dir.resolve()
    with exclusive(data_dir, "start.lock"):
        running = status(data_dir)
        if running is not None:
            return running
        broker = LocalBroker(prepare(say), data_dir, port=port, die_with_parent=False, throughput=throughput)
        broker.launch()
        broker.leave()
        return Status(broker.pid, broker.port, ready=True, started=True)


def status(data_dir: Path) -> Status | None:
    """Return the broker that runs on ``data_dir``, or None. Its pid alone may belong to somebody else by now."""
    try:
        state = msgspec.json.decode((data_dir / STATE_NAME).read_bytes(), type=BrokerState)
    except (OSError, msgspec.DecodeError):
        return None
    if not process.in_use(data_dir):
        return None
    return Status(state.pid, state.port, process.wait_ready(state.port, lambda: True, 0.1))


def stop(data_dir: Path, *, seconds: float = 30.0) -> bool:
    """Stop the broker that runs on ``data_dir``; kill it after ``seconds``. False where none ran. Blocks."""
    data_dir = data_dir.resolve()
    with exclusive(data_dir, "start.lock"):
        running = status(data_dir)
        if running is None:
            return False
        for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 10.0)):
            try:
                os.kill(running.pid, number)
            except ProcessLookupError:
                pass
            except PermissionError:
                raise SetupError(f"the broker (pid {running.pid}) belongs to another user") from None
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                if not process.in_use(data_dir):
                    return True
                time.sleep(0.05)
        raise SetupError(f"the broker (pid {running.pid}) does not end")
