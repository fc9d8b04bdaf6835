"""What every worker has: a stop signal, a logger with stable names, and its identity in Kafka."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from types import FrameType
from typing import Any

import msgspec

from contract.settings import Settings


class Stopped(Exception):
    """A stop was requested while waiting; nothing is half done."""


class Stop:
    """A request to end, made by a signal or another thread."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @classmethod
    def on_signals(cls, deadline_seconds: float | None = None) -> Stop:
        """Return a Stop that SIGTERM and SIGINT request. Only the main thread may call this.

        A process that has not ended ``deadline_seconds`` later ends at once with exit code 1.
        """
        stop = cls()
        # The byte is written at once, also while the main thread is inside a call that runs no Python code.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in _ENDING:
            signal.signal(number, _left_to_the_thread)
        threading.Thread(target=stop._follow, args=(reading, deadline_seconds), name="signals", daemon=True).start()
        return stop

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def request(self) -> None:
        self._event.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Block until a stop is requested, at most ``seconds``; return whether it was."""
        return self._event.wait(seconds)

    def _follow(self, signals: int, deadline_seconds: float | None) -> None:
        while not _ENDING.intersection(os.read(signals, 64)):
            pass
        self.request()
        if deadline_seconds is not None:
            time.sleep(deadline_seconds)
            Log("worker").error("deadline_passed", seconds=deadline_seconds)
            os._exit(1)


_ENDING = frozenset({signal.SIGTERM, signal.SIGINT})


def _left_to_the_thread(_signal: int, _frame: FrameType | None) -> None:
    """Without a handler the signal would end the process."""


def hold_off_collector() -> None:
    """Look for cyclic garbage rarely from now on, and never again among what is held now.

    Python would walk through all tables again and again, and there are no cycles in them.
    """
    gc.freeze()
    gc.set_threshold(200_000, 10, 10)


@dataclass(frozen=True)
class Identity:
    """Who a worker is to Kafka.

    Static members: the instance id is the transactional id, so a successor in the same slot fences
    its predecessor on both ways.
    """

    group: str
    instance: str

    @classmethod
    def of(cls, settings: Settings, worker: str, generation: str) -> Identity:
        group = f"{settings.namespace}{worker}.{generation}"
        return cls(group=group, instance=f"{group}.{settings.slot}")


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={value}" for name, value in getattr(record, "fields", {}).items())
        text = (
            f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {record.name} {record.getMessage()} {fields}"
        )
        return text + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


class _RateLimit(logging.Filter):
    """Lets a message name through 20 times a second and counts what it kept back."""

    def __init__(self) -> None:
        super().__init__()
        self._window: dict[str, tuple[int, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        second, name = int(record.created), f"{record.name}{record.msg}"
        began, count = self._window.get(name, (second, 0))
        if began != second:
            if count > 20:
                record.fields = {**getattr(record, "fields", {}), "held_back": count - 20}
            count = 0
        self._window[name] = (second, count + 1)
        return count < 20


def set_up_logging(level: str) -> None:
    """Log an event a line to stderr: JSON off a terminal, plain on it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain() if sys.stderr.isatty() else _JsonLines())
    handler.addFilter(_RateLimit())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class Log:
    """Structured log events: ``log.info("restored", partition=3)``. Never give it user ids."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"stoppress.{name}")

    def debug(self, event: str, **fields: Any) -> None:
        self._logger.debug(event, extra={"fields": fields})

    def info(self, event: str, **fields: Any) -> None:
        self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, **fields: Any) -> None:
        self._logger.warning(event, extra={"fields": fields})

    def error(self, event: str, **fields: Any) -> None:
        self._logger.error(event, extra={"fields": fields})
