"""An ASGI application on loopback, on a thread of its own, ended within a deadline."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Callable
from typing import Any

import uvicorn
from litestar import Litestar

from contract.errors import PortInUse


def listen(host: str, port: int) -> socket.socket:
    """Bind ``host:port`` (0: any free port). Raises :class:`PortInUse` where the address is taken.

    That ``host`` is loopback is what the settings see to: nothing here asks who is calling.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        why = "is in use by another process" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        raise PortInUse(f"{host}:{port} {why}; choose another with --port or STOPPRESS_PORT") from None
    return listener


class HttpServer:
    """uvicorn off the main thread, so that signals stay with the caller."""

    def __init__(self, app: Litestar, listener: socket.socket) -> None:
        host, port = listener.getsockname()[:2]
        self.address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._loop = asyncio.new_event_loop()
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=1)
        )
        listener.listen()  # whoever knows the address from now on waits for the thread and is not refused
        self._thread = threading.Thread(target=self._serve, args=(listener,), name="http", daemon=True)
        self._thread.start()

    def _serve(self, listener: socket.socket) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._uvicorn.serve(sockets=[listener]))
        finally:
            self._loop.close()

    @property
    def alive(self) -> bool:
        """Whether the server still runs."""
        return self._thread.is_alive()

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Run ``function`` in the server's event loop soon; does not block."""
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            if self.alive:  # otherwise the loop has been closed, and nobody is left to tell
                raise

    def close(self, seconds: float) -> None:
        """Stop taking requests and end those that are open; blocks at most ``seconds``."""
        self._uvicorn.should_exit = True
        self._thread.join(seconds)
