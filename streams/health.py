"""/healthz, /readyz and /metrics of a worker, on a thread of its own."""

from __future__ import annotations

import errno
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest

from contract.errors import PortInUse
from streams.worker import Log, Stop, Stopped

READY = Gauge("stoppress_ready", "1 once the worker is assigned and restored, else 0")
STUCK_AFTER_SECONDS = 60.0


class HealthServer:
    """Answers on ``host:port`` (0: any free port) until closed.

    Alive means that :meth:`beat` was called within the last minute; ready is what :meth:`ready` was
    told last. Raises :class:`PortInUse` where the address is taken.
    """

    def __init__(self, host: str, port: int) -> None:
        self._ready = False
        self._beat = time.monotonic()
        health = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body, content_type = health._answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            address_family = _family(host)

        try:
            self._server = Server((host, port), Handler)
        except OSError as error:
            raise _cannot_listen(host, port, error) from None
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()
        READY.set(0)
        Log("health").info(
            "listening", address=f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"
        )

    def ready(self, ready: bool) -> None:
        """Say whether /readyz is to answer 200."""
        self._ready = ready
        READY.set(float(ready))

    def is_ready(self) -> bool:
        """Whether /readyz answers 200."""
        return self._ready and self._silent_seconds < STUCK_AFTER_SECONDS

    def beat(self) -> None:
        """Say that the loop came round, or waits for something that it knows of."""
        self._beat = time.monotonic()

    @property
    def _silent_seconds(self) -> float:
        return time.monotonic() - self._beat

    def _answer(self, path: str) -> tuple[int, bytes, str]:
        if path == "/metrics":
            return 200, generate_latest(), CONTENT_TYPE_LATEST
        if path == "/healthz":
            silent = self._silent_seconds
            alive = silent < STUCK_AFTER_SECONDS
            text = "alive\n" if alive else f"the loop has not come round for {silent:.0f} s\n"
            return (200 if alive else 503), text.encode(), "text/plain"
        if path == "/readyz":
            ready = self.is_ready()
            return (200 if ready else 503), (b"ready\n" if ready else b"not ready\n"), "text/plain"
        return 404, b"try /healthz, /readyz or /metrics\n", "text/plain"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering; blocks until the thread has ended."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Pulse:
    """What a worker's loop and everything that blocks in it calls again and again."""

    def __init__(self, stop: Stop, health: HealthServer) -> None:
        self._stop = stop
        self._health = health

    def beat(self) -> None:
        """Say that the worker lives. Raises :class:`Stopped` where a stop was requested."""
        if self._stop.requested:
            raise Stopped
        self._health.beat()

    def wait(self, seconds: float) -> None:
        """Block for ``seconds``, or until a stop is requested."""
        self._stop.wait(seconds)

    def ready(self, ready: bool) -> None:
        """Say whether /readyz is to answer 200."""
        self._health.ready(ready)


def check_free(host: str, port: int) -> None:
    """Raise :class:`PortInUse` where nobody can listen on ``host:port`` now: said before a start that takes long."""
    try:
        socket.create_server((host, port), family=_family(host)).close()
    except OSError as error:
        raise _cannot_listen(host, port, error) from None


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _cannot_listen(host: str, port: int, error: OSError) -> PortInUse:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(f"{host}:{port} is in use by another process; choose another with --port")
    return PortInUse(f"cannot listen on {host}:{port}: {error.strerror}; set --port or STOPPRESS_PORT")
