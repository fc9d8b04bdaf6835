"""What the page may do to a running demo: click, publish, kill, and watch the figures.

    POST /control/click      {user_id, article_id, list_id, position}    -> {event_id}
    POST /control/publish    {title, abstract, category}                 -> {article_id}
    POST /control/kill       {}                                          -> {kill}
    GET  /control/stream     server-sent events: ``hello``, ``cast``, then ``figures`` four times a second

Loopback only, and only for the feed's own page: every request must carry that page's origin.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec
from litestar import Litestar, Request, get, post
from litestar.config.cors import CORSConfig
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException, PermissionDeniedException, ServiceUnavailableException
from litestar.handlers import BaseRouteHandler
from litestar.response import Stream

from contract.errors import BadRecord
from contract.messages import check_id

MAX_STREAMS = 32
TICK_SECONDS = 0.25
MAX_TEXT = 2000
MAX_CATEGORY = 64


class Click(msgspec.Struct, forbid_unknown_fields=True):
    """A click on the page."""

    user_id: str
    article_id: str
    list_id: str = ""
    position: int | None = None
    reason: str = ""
    source: str = ""


class Headline(msgspec.Struct, forbid_unknown_fields=True):
    """A headline typed into the page."""

    title: str
    abstract: str = ""
    category: str = ""


class Kill(msgspec.Struct, forbid_unknown_fields=True):
    """Nothing to choose: it is the users worker that dies."""


class Room(Protocol):
    """The running demo, as the control service needs it. No method blocks for long."""

    def hello(self) -> dict[str, Any]:
        """What a page needs once: its strap line, suggestions, history."""

    def cast(self) -> list[dict[str, str]]:
        """The users to show, {user_id, label, note}; empty while there are none."""

    def figures(self) -> dict[str, Any]:
        """The newest figures."""

    def click(self, click: Click) -> str:
        """Send the click; return its event_id."""

    def publish(self, headline: Headline) -> str:
        """Publish the headline; return its article_id."""

    def kill(self) -> int | None:
        """Kill the users worker and return the number of the kill; None while the last one is not over."""


def create_control(room: Room, origins: Sequence[str]) -> Litestar:
    """Return the ASGI application for pages served from ``origins``."""
    allowed = frozenset(origins)
    open_streams = 0

    def from_the_page(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        if connection.headers.get("origin") not in allowed:
            raise PermissionDeniedException("only the demo's own page may do this")
        host = urlsplit(f"//{connection.headers.get('host', '')}").hostname
        if host not in ("127.0.0.1", "localhost", "::1"):
            raise PermissionDeniedException("only by this machine's own address")

    @post("/control/click", status_code=200)
    async def click(data: Click) -> dict[str, str]:
        try:
            check_id("user_id", data.user_id)
            check_id("article_id", data.article_id)
        except BadRecord as error:
            raise HTTPException(str(error), status_code=400) from None
        return {"event_id": room.click(data)}

    @post("/control/publish", status_code=200)
    async def publish(data: Headline) -> dict[str, str]:
        if not data.title.strip() or max(len(data.title), len(data.abstract)) > MAX_TEXT:
            raise HTTPException(f"a headline has 1 to {MAX_TEXT} characters", status_code=400)
        if len(data.category) > MAX_CATEGORY:
            raise HTTPException(f"a category has at most {MAX_CATEGORY} characters", status_code=400)
        return {"article_id": room.publish(data)}

    @post("/control/kill", status_code=200)
    async def kill(data: Kill) -> dict[str, int]:
        number = room.kill()
        if number is None:
            raise HTTPException("the worker is still recovering from the last kill", status_code=409)
        return {"kill": number}

    async def events() -> AsyncIterator[bytes]:
        nonlocal open_streams
        open_streams += 1
        try:
            yield b"retry: 1000\n\n" + _event("hello", room.hello())
            shown: list[dict[str, str]] = []
            while True:
                if (cast := room.cast()) != shown:
                    shown = cast
                    yield _event("cast", {"users": cast})
                yield _event("figures", room.figures())
                await asyncio.sleep(TICK_SECONDS)
        finally:
            open_streams -= 1

    @get("/control/stream")
    async def stream(request: Request[Any, Any, Any]) -> Stream:
        if open_streams >= MAX_STREAMS:
            raise ServiceUnavailableException("too many pages are open")
        return Stream(events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    return Litestar(
        [click, publish, kill, stream],
        guards=[from_the_page],
        cors_config=CORSConfig(
            allow_origins=list(origins), allow_methods=["GET", "POST"], allow_headers=["content-type"]
        ),
        request_max_body_size=64 << 10,
        openapi_config=None,
        logging_config=None,
    )


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"
