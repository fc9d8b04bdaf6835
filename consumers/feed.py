"""The feed: one view of one topic, as HTTP, server-sent events and a page.

    GET /v1/feed/{user_id}           the user's list joined with its articles; unknown user: ``~popular``
    GET /v1/feed?user_id=            the same, for ids that do not fit into a path: ``~popular/CATEGORY``, the popular
                                     list of a category, and ``~related/ARTICLE``, what is related to an article
    GET /v1/feed/{user_id}/stream    server-sent events: the feed at once, then each new one
    GET /v1/stream?users=a,b         the same for several users over one connection
    GET /                            the page; its files are under /page/
    GET /healthz /readyz /metrics

The calling thread polls the two tables; the HTTP server has a thread of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
from litestar import Litestar, MediaType, Response, get
from litestar.config.cors import CORSConfig
from litestar.exceptions import ClientException, NotFoundException, ServiceUnavailableException
from litestar.params import FromPath, FromQuery
from litestar.response import Stream
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

from consumers.feed_streams import MAX_USERS, Streams
from consumers.feed_view import FeedView, encode_feed
from consumers.http_server import HttpServer, listen
from contract.errors import StoppressError
from contract.settings import Settings
from contract.topics import Topics
from streams.table import TableReader
from streams.worker import Log, Stop

DEFAULT_PORT = 8100
POLL_SECONDS = 0.02
PAGE = Path(__file__).parent / "page"
PAGE_FILES = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "column.js": "text/javascript",
    "why.js": "text/javascript",
    "figures.js": "text/javascript",
    "charts.js": "text/javascript",
    "format.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}

REQUESTS = Counter("stoppress_feed_requests", "HTTP requests.", ["route", "status"])
SECONDS = Histogram(
    "stoppress_feed_response_seconds",
    "Time to the first byte.",
    ["route"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5),
)
STREAMS_OPEN = Gauge("stoppress_feed_streams_open", "Server-sent event streams that are open.")
LISTS_HELD = Gauge("stoppress_feed_lists", "Lists held, reserved keys included.")
ARTICLES_HELD = Gauge("stoppress_feed_articles", "Articles held.")
_log = Log("feed")


def run(settings: Settings, topics: Topics, stop: Stop) -> None:
    """Serve until ``stop`` is requested; blocks. Raises :class:`contract.errors.PortInUse`."""
    port = DEFAULT_PORT if settings.port is None else settings.port
    listener = listen(settings.host, port)
    _log.info("starting", generation=topics.generation, settings=settings.for_log())
    view = FeedView()
    streams = Streams(view)
    with ExitStack() as stack:
        stack.callback(listener.close)
        articles = stack.enter_context(closing(TableReader(settings, topics.articles, name="feed-articles")))
        lists = stack.enter_context(closing(TableReader(settings, topics.recommendations, name="feed-lists")))
        app = create_app(settings, view, streams, lambda: articles.caught_up and lists.caught_up)
        server = HttpServer(app, listener)
        stack.callback(server.close, settings.shutdown_seconds)
        stack.callback(server.call, streams.close)
        _log.info("listening", address=server.address)
        ready = False
        while not stop.requested and server.alive:
            live = lists.caught_up
            changed_articles = view.apply_articles(articles.poll())
            records = lists.poll(POLL_SECONDS, limit=1)
            if records:
                records += lists.poll()
            changed_users = view.apply_lists(records, live=live)
            if changed_users or changed_articles:
                server.call(streams.changed, changed_users, changed_articles)
            if not ready and live and articles.caught_up:
                ready = True
                _log.info("ready", lists=view.lists, articles=view.articles)
        if not server.alive and not stop.requested:
            raise StoppressError("the feed's HTTP server has ended by itself; its last log lines say why")


def create_app(settings: Settings, view: FeedView, streams: Streams, ready: Callable[[], bool]) -> Litestar:
    """Return the ASGI application over ``view``; needs no Kafka."""

    def feed_of(user_id: str) -> Response[bytes]:
        return _json(encode_feed(view.read(user_id)[0]))

    def stream_of(users: list[str]) -> Stream:
        if streams.full:
            raise ServiceUnavailableException("too many streams are open; try again later")
        return Stream(
            streams.events(users),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    @get("/v1/feed/{user_id:str}")
    async def feed(user_id: FromPath[str]) -> Response[bytes]:
        return feed_of(user_id)

    @get("/v1/feed")
    async def feed_by_query(user_id: FromQuery[str]) -> Response[bytes]:
        return feed_of(user_id)

    @get("/v1/feed/{user_id:str}/stream")
    async def stream(user_id: FromPath[str]) -> Stream:
        return stream_of([user_id])

    @get("/v1/stream")
    async def stream_of_many(users: FromQuery[str]) -> Stream:
        wanted = list(dict.fromkeys(user for user in users.split(",") if user))
        if not 1 <= len(wanted) <= MAX_USERS:
            raise ClientException(f"users: name 1 to {MAX_USERS} users, separated by commas")
        return stream_of(wanted)

    @get("/healthz", media_type=MediaType.TEXT)
    async def healthz() -> str:
        return "alive\n"

    @get("/readyz")
    async def readyz() -> Response[str]:
        if ready():
            return Response("ready\n", media_type=MediaType.TEXT)
        return Response("not ready: the topics are still being read\n", status_code=503, media_type=MediaType.TEXT)

    @get("/metrics")
    async def metrics() -> Response[bytes]:
        STREAMS_OPEN.set(len(streams))
        LISTS_HELD.set(view.lists)
        ARTICLES_HELD.set(view.articles)
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    control_url = settings.control_url or None

    @get("/")
    async def page() -> Response[bytes]:
        return _file("index.html", "text/html", control_url)

    @get("/page/config.json")
    async def page_config() -> Response[bytes]:
        return _json(msgspec.json.encode({"control": control_url}))

    @get("/page/{name:str}")
    async def page_file(name: FromPath[str]) -> Response[bytes]:
        if name not in PAGE_FILES:
            raise NotFoundException(f"the page has no file {name!r}")
        return _file(name, PAGE_FILES[name], control_url)

    return Litestar(
        [feed, feed_by_query, stream, stream_of_many, healthz, readyz, metrics, page, page_config, page_file],
        cors_config=CORSConfig(allow_origins=settings.cors_origins, allow_methods=["GET"]),
        middleware=[_measured],
        openapi_config=None,
        logging_config=None,
    )


def _json(content: bytes) -> Response[bytes]:
    return Response(content, media_type=MediaType.JSON, headers={"Cache-Control": "no-store"})


def _file(name: str, media_type: str, control_url: str | None) -> Response[bytes]:
    policy = [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        f"connect-src 'self' {control_url or ''}".strip(),
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return Response((PAGE / name).read_bytes(), media_type=media_type, headers=headers)


def _measured(app: ASGIApp) -> ASGIApp:
    """Count a request and its seconds when its response begins."""

    async def measured(scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        route = str(scope.get("path_template", "other"))

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                REQUESTS.labels(route, str(message["status"])).inc()
                SECONDS.labels(route).observe(time.perf_counter() - began)
            await send(message)

        await app(scope, receive, counted)

    return measured
