"""``stoppress demo``: a broker, the four workers, a simulated newsroom and a page, until Ctrl-C.

1. broker, topics, observer and control service in this process
2. the workers as processes of their own; whoever dies is started again at once, in the same slot, unless another
   process has taken that
3. the simulator (or a replay) once all of them are ready
4. at the end the source stops first, then everything is accounted for, then the rest stops
"""

from __future__ import annotations

import fcntl
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from consumers.feed import DEFAULT_PORT
from consumers.http_server import HttpServer, listen
from contract.errors import PortInUse, SetupError, StoppressError
from contract.settings import Settings
from contract.topics import Topics
from demo.control import create_control
from demo.observer import Observer
from demo.processes import Child, environment
from demo.report import check_writable, make_report, write_report
from demo.room import DemoRoom
from demo.source import Source
from demo.status import Status
from demo.suggestions import suggested_headlines
from streams.admin import create_topics
from streams.local_broker import LocalBroker
from streams.local_broker import status as broker_status
from streams.worker import Stop

HOST = "127.0.0.1"
BROKER_PORT = 9092
WORKERS = ("articles", "users", "ranker")
READY_SECONDS = 90.0
ACCOUNTED_SECONDS = 60.0
HURRIED_SECONDS = 15.0
"""As long as that, but where somebody asked for the end."""
LATENCIES_AFTER_SECONDS = 15.0
TICK_SECONDS = 0.05
PARTITIONS = 4
"""Unless told otherwise. A transaction is marked in every partition that it touches, and here one broker shares its few
cores with all workers: with 12 an event takes nearly twice as long to its list."""
DEATHS_IN_A_ROW = 5
ORPHAN_SECONDS = 12.0


def run_demo(
    settings: Settings,
    make_topics: Callable[[Settings], Topics],
    stop: Stop,
    *,
    source: Sequence[str],
    strap: str = "",
    seconds: float | None = None,
    report: Path | None = None,
    folder: Path = Path("var/demo"),
) -> int:
    """Run until ``stop``, or ``seconds`` after the first live event; return the exit code. Blocks.

    ``source`` are the arguments of the command that sends articles and events (``produce simulate …``),
    ``make_topics`` gives the topics of the settings it is handed, ``strap`` says in the page's head what
    runs. Raises :class:`SetupError` where something that is needed is missing or taken.
    """
    if report is not None:
        check_writable(report)
    if "partitions" not in settings.model_fields_set:
        settings = settings.model_copy(update={"partitions": PARTITIONS})
    topics = make_topics(settings)
    status = Status()
    with ExitStack() as stack:
        stack.enter_context(_alone_in(folder))
        feed_listener = _reserve(DEFAULT_PORT if settings.port is None else settings.port, settings.port is not None)
        stack.callback(feed_listener.close)
        broker = stack.enter_context(_start_broker(folder / "kafka", status))
        control_listener = listen(HOST, 0)
        page = f"http://{HOST}:{feed_listener.getsockname()[1]}"
        settings = settings.model_copy(
            update={
                "bootstrap_servers": broker.bootstrap_servers,
                "kafka": {},
                "host": HOST,
                "explain": True,
                "holdout": 0,
                "control_url": f"http://{HOST}:{control_listener.getsockname()[1]}",
            }
        )
        create_topics(settings, topics.specs())
        workers = {name: _child(name, settings, _free_port(), folder) for name in WORKERS}
        workers["feed"] = _child("feed", settings, feed_listener.getsockname()[1], folder)
        feed_listener.close()
        demo = _Demo(workers, status, stop, settings.shutdown_seconds)
        stack.callback(demo.stop_workers)
        if not demo.start_workers():
            return 0
        observer = Observer(settings, topics)
        stack.callback(observer.close)
        room = DemoRoom(settings, topics, observer, workers["users"], strap=strap, suggestions=suggested_headlines())
        stack.callback(room.close)
        control = HttpServer(create_control(room, [page, page.replace(HOST, "localhost")]), control_listener)
        stack.callback(control.close, 2.0)
        observer.start()
        status.say(f"the page is at {page}")
        sender = Source(source, environment(settings), folder / "logs" / "source.log", room)
        stack.callback(sender.stop)
        demo.run(sender, room, seconds)
        complete = demo.settle(sender, room)
        figures = make_report(observer, room.judgement, room.recovery_seconds(), demo.live_seconds)
        if report is not None:
            write_report(report, figures)
        status.end(figures)
        return 0 if complete and figures["lost"] == 0 else 1


class _Demo:
    """The processes of one demo."""

    def __init__(self, workers: dict[str, Child], status: Status, stop: Stop, shutdown_seconds: float) -> None:
        self._workers = workers
        self._status = status
        self._stop = stop
        self._shutdown_seconds = shutdown_seconds
        self._deaths = dict.fromkeys(workers, 0)
        self._fenced: set[str] = set()
        self.live_seconds = 0.0

    def start_workers(self) -> bool:
        """Start all and block until all are ready; False where a stop was requested meanwhile."""
        for child in self._workers.values():
            child.start()
        deadline = time.monotonic() + READY_SECONDS
        waiting = dict(self._workers)
        while waiting and not self._stop.wait(TICK_SECONDS):
            for name, child in list(waiting.items()):
                if not child.running:
                    raise _died(child)
                if child.ready():
                    del waiting[name]
                    self._status.say(f"{name} is ready")
            if time.monotonic() > deadline:
                raise StoppressError(
                    f"not ready after {READY_SECONDS:.0f} s: {', '.join(waiting)}; see {child.log.parent}"
                )
        return not self._stop.requested

    def run(self, sender: Source, room: DemoRoom, seconds: float | None) -> None:
        """Let the source run, restart who dies, show the figures; until a stop, the time or the source's own end."""
        sender.start()
        began = None
        with self._status.live():
            while not self._stop.wait(TICK_SECONDS) and sender.running:
                self._mind(room)
                self._status.show(room.figures)
                if began is not None:
                    self.live_seconds = time.monotonic() - began
                    if seconds is not None and self.live_seconds >= seconds:
                        return
                elif sender.live.is_set():
                    began = time.monotonic()
                    room.observer.begin(LATENCIES_AFTER_SECONDS)

    def settle(self, sender: Source, room: DemoRoom) -> bool:
        """Stop the source, wait until all it sent is accounted for; False where that took too long."""
        self._status.say("stopping the source, then waiting until every event is accounted for")
        sender.stop()
        if sender.failed:
            raise _failed("the source", sender.exit_code, sender.last_line())
        limit = HURRIED_SECONDS if self._stop.requested else ACCOUNTED_SECONDS
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            self._mind(room)
            if room.observer.wait_accounted(1.5):
                return True
        self._status.say(f"not everything was accounted for within {limit:.0f} s")
        return False

    def stop_workers(self) -> None:
        """Stop all at once; blocks until they have ended."""
        for child in self._workers.values():
            child.terminate()
        deadline = time.monotonic() + self._shutdown_seconds + 1
        for child in self._workers.values():
            child.stop(deadline - time.monotonic())

    def _mind(self, room: DemoRoom) -> None:
        if room.observer.failure is not None:
            raise StoppressError(f"the demo's own account broke off: {room.observer.failure}")
        for name, child in self._workers.items():
            if child.running or name in self._fenced:
                continue
            if child.logged("fenced"):  # started again it would fence the other, which would be started again
                self._fenced.add(name)
                self._status.say(f"{name} stays down: another process has taken its slot")
                continue
            self._deaths[name] += 1
            if self._deaths[name] > DEATHS_IN_A_ROW + len(room.recoveries):
                raise _died(child)
            self._status.say(f"{name} ended with {child.exit_code}; starting it again")
            child.start()


def _died(child: Child) -> StoppressError:
    return _failed(f"the {child.name} worker", child.exit_code, child.last_line())


def _failed(who: str, exit_code: int | None, last_line: str) -> StoppressError:
    error = SetupError if exit_code == SetupError.exit_code else StoppressError
    return error(f"{who} ended with exit code {exit_code}: {last_line.removeprefix('stoppress: ')}")


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder for this demo. Raises :class:`SetupError` where another has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupError(f"another demo runs in {folder}; end that one first") from None
        yield


def _start_broker(data: Path, status: Status) -> LocalBroker:
    """A broker without memory of earlier demos, on the usual port where that is free."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while (running := broker_status(data)) is not None:  # that of a demo that was killed: its guard is ending it
        if time.monotonic() > deadline:
            raise SetupError(f"a broker still runs in {data} (pid {running.pid}); end that one first")
        time.sleep(TICK_SECONDS)
    shutil.rmtree(data, ignore_errors=True)
    try:
        return LocalBroker.start(data, port=BROKER_PORT, throughput=True, say=status.say)
    except PortInUse:
        return LocalBroker.start(data, port=0, throughput=True, say=status.say)


def _child(name: str, settings: Settings, port: int, folder: Path) -> Child:
    log = folder / "logs" / f"{name}.log"
    log.unlink(missing_ok=True)
    env = environment(settings.model_copy(update={"port": port}))
    return Child(name, ["run", name], env, log, port=port)


def _reserve(port: int, asked_for: bool) -> socket.socket:
    """Bind ``port``, or any other where nobody asked for this one."""
    try:
        return listen(HOST, port)
    except PortInUse:
        if asked_for:
            raise
        return listen(HOST, 0)


def _free_port() -> int:
    with listen(HOST, 0) as listener:
        port: int = listener.getsockname()[1]
        return port
