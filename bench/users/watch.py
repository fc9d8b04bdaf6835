"""A contender from outside: its processes, what they print, what the broker says it has committed, what it costs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

Found = TypeVar("Found")
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Command:
    """How one process is started; ``env`` is added to this process's environment."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


class Processes:
    """The processes of a contender; standard output is read for its lines, the rest goes to ``log``."""

    def __init__(self, commands: Sequence[Command], log: Path) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._processes = [self._start(number, command) for number, command in enumerate(commands)]
        self.cpu_seconds = 0.0
        self.peak_mb = 0.0
        self.now_mb = 0.0
        self.half_done = 0

    def _start(self, number: int, command: Command) -> subprocess.Popen[bytes]:
        with self._out(number).open("wb") as out, self._log.open("ab") as log:
            return subprocess.Popen(
                command.argv, env={**os.environ, **command.env}, stdin=subprocess.DEVNULL, stdout=out, stderr=log
            )

    def _out(self, number: int) -> Path:
        return self._log.with_suffix(f".{number}.out")

    def printed(self, word: str) -> list[list[str]]:
        """The lines of all processes that begin with ``word``, cut at spaces."""
        lines = [
            line for n in range(len(self._processes)) for line in self._out(n).read_text(errors="replace").splitlines()
        ]
        return [line.split() for line in lines if line.split()[:1] == [word]]

    def measure(self) -> None:
        """Read processor time and memory from the operating system; the peak is the sum of the processes' peaks."""
        cpu = peak = now = 0.0
        for process in self._processes:
            stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            cpu += (int(stat[11]) + int(stat[12])) / TICK
            sizes = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
            peak += int(sizes["VmHWM"].split()[0]) / 1024
            now += int(sizes["VmRSS"].split()[0]) / 1024
        self.cpu_seconds, self.peak_mb, self.now_mb = cpu, peak, now

    def await_line(self, word: str, seconds: float, count: int = 1) -> list[list[str]]:
        """Block until ``count`` lines begin with ``word``."""
        return self.wait_until(lambda: found if len(found := self.printed(word)) >= count else None, word, seconds)

    def wait_until(self, found: Callable[[], Found | None], what: str, seconds: float) -> Found:
        """Block until ``found`` returns something; raises where a process ends or the time is over."""
        deadline = time.monotonic() + seconds
        while (answer := found()) is None:
            ended = [process.returncode for process in self._processes if process.poll() is not None]
            if ended:
                raise RuntimeError(f"a process ended with {ended[0]}; see {self._log}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"not within {seconds:.0f} s: {what}; see {self._log}")
            time.sleep(0.01)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Committed:
    """The offsets that a group has committed on ``topic``, summed over its partitions."""

    def __init__(self, bootstrap: str, group: str, topic: str, partitions: int) -> None:
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self._asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, p) for p in range(partitions)])

    def total(self) -> int:
        """Return the sum; blocks for a round trip. A partition without a commit counts as none."""
        for future in self._admin.list_consumer_group_offsets([self._asked]).values():
            try:
                answer = future.result()
            except Exception:  # noqa: BLE001  the group may not be there yet, or be between two transactions
                return 0
            return sum(max(0, tp.offset) for tp in answer.topic_partitions)
        return 0
